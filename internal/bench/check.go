package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// checks take too long for every change, and are run by hand.
func checks() map[string]func(context.Context, settings) error {
	return map[string]func(context.Context, settings) error{
		"amplification": checkAmplification,
		"big":           checkBig,
		"chaos":         checkChaos,
		"cost":          checkCost,
		"disconnects":   checkDisconnects,
		"fuzz":          checkFuzz,
		"keys":          checkKeys,
		"kill":          checkKill,
		"memory":        checkMemory,
		"openloop":      checkOpenLoop,
		"pages":         checkPages,
		"series":        checkSeries,
		"shutdown":      checkShutdown,
		"slow":          checkSlow,
		"soak":          checkSoak,
		"stampede":      checkStampede,
		"starved":       checkStarved,
		"streams":       checkStreams,
		"telemetry":     checkTelemetry,
		"update":        checkUpdate,
		"upstream":      checkUpstream,
	}
}

func runCheck(ctx context.Context, name string, s settings) error {
	check, ok := checks()[name]
	if !ok {
		return fmt.Errorf("no check is called %q; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(checks())), ", "))
	}
	if err := check(ctx, s); err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	fmt.Printf("check %s: passed\n", name)
	return nil
}

// checkFuzz fuzzes each target of the gateway's module for a minute.
func checkFuzz(ctx context.Context, _ settings) error {
	root, err := goTool(ctx, "", "list", "-m", "-f", "{{.Dir}}", "github.com/embedgw/gateway")
	if err != nil {
		return err
	}
	dir := strings.TrimSpace(root)
	files, err := filepath.Glob(filepath.Join(dir, "internal", "*", "*_test.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(source) {
			name, ok := bytes.CutPrefix(line, []byte("func Fuzz"))
			if !ok {
				continue
			}
			name, _, _ = bytes.Cut(name, []byte("("))
			fmt.Printf("%s Fuzz%s\n", filepath.Base(filepath.Dir(file)), name)
			out, err := goTool(ctx, filepath.Dir(file), "test", "-run", "^$", "-fuzz", "^Fuzz"+string(name)+"$", "-fuzztime", "60s", ".")
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
		}
	}
	return nil
}

func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}
