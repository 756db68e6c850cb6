package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A process of a measurement takes orders as JSON on its standard input, and
// answers each on its standard output. It ends when its input does: with its
// parent, however that ended.

type order struct {
	Do        string // start, settle, usage, run
	Candidate *candidateConfig
	Load      *loadConfig
}

type answer struct {
	Err    string
	Addr   string      // start: where it listens
	Usage  *usage      // usage
	Served int64       // usage: requests that it has answered
	Load   *loadResult // run
}

type roleFunc func(order) (answer, error)

func serveRole(name string) error {
	roles := map[string]roleFunc{"upstream": new(upstream).obey, "candidate": new(candidate).obey, "load": new(load).obey}
	obey, ok := roles[name]
	if !ok {
		return fmt.Errorf("no such role: %q", name)
	}
	time.AfterFunc(lifetime, func() { os.Exit(3) })
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := obey(o)
		if err != nil {
			a.Err = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// A child is a process that this one has started.
type child struct {
	role string
	cmd  *exec.Cmd
	in   io.Closer
	enc  *json.Encoder
	dec  *json.Decoder
}

func start(ctx context.Context, role string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-role", role)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{role: role, cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}, nil
}

func (c *child) ask(o order) (answer, error) {
	var a answer
	if err := c.enc.Encode(o); err != nil {
		return a, fmt.Errorf("%s: %w", c.role, err)
	}
	if err := c.dec.Decode(&a); err != nil {
		return a, fmt.Errorf("%s: %w", c.role, err)
	}
	if a.Err != "" {
		return a, fmt.Errorf("%s: %s", c.role, a.Err)
	}
	return a, nil
}

// stop ends the process and waits for it.
func (c *child) stop() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}
