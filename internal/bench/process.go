package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A process of a measurement takes orders as JSON on its standard input, and
// answers each on its standard output. It ends when its input does: with its
// parent, however that ended.

type order struct {
	Do   string
	With json.RawMessage
}

type answer struct {
	Err string
	Is  json.RawMessage
}

// A role is what a process can be told to do.
type role map[string]func(with json.RawMessage) (any, error)

// does makes f an order.
func does[A, R any](f func(A) (R, error)) func(json.RawMessage) (any, error) {
	return func(with json.RawMessage) (any, error) {
		var a A
		if err := json.Unmarshal(with, &a); err != nil {
			return nil, err
		}
		return f(a)
	}
}

// nothing is what some orders come with, and what some are answered with.
type nothing struct{}

func roles() map[string]role {
	return map[string]role{
		"upstream":  new(upstream).role(),
		"origin":    new(origin).role(),
		"candidate": new(candidate).role(),
		"load":      new(load).role(),
		"peers":     new(peers).role(),
	}
}

func serveRole(name string) error {
	does, ok := roles()[name]
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
		if err := out.Encode(does.obey(o)); err != nil {
			return err
		}
	}
}

func (r role) obey(o order) (a answer) {
	f, ok := r[o.Do]
	if !ok {
		return answer{Err: fmt.Sprintf("no such order: %q", o.Do)}
	}
	is, err := f(o.With)
	if err == nil {
		a.Is, err = json.Marshal(is)
	}
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

// A child is a process that this one has started.
type child struct {
	role string
	cmd  *exec.Cmd
	in   io.Closer

	mu  sync.Mutex // it does one order at a time
	enc *json.Encoder
	dec *json.Decoder
}

func start(ctx context.Context, role string, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{self, "-role", role}
	if role == "peers" { // a crowd that is elsewhere, as a rule, and takes nothing from what is measured
		args = append([]string{"nice", "-n", "19"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
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

// startWith starts a process that listens, and returns where.
func startWith(ctx context.Context, role string, with any, env ...string) (*child, string, error) {
	c, err := start(ctx, role, env...)
	if err != nil {
		return nil, "", err
	}
	addr, err := ask[string](c, "start", with)
	if err != nil {
		c.stop()
		return nil, "", err
	}
	return c, addr, nil
}

// ask gives the process an order and returns its answer.
func ask[R any](c *child, do string, with any) (R, error) {
	var is R
	arg, err := json.Marshal(with)
	if err != nil {
		return is, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var a answer
	if err = c.enc.Encode(order{do, arg}); err == nil {
		err = c.dec.Decode(&a)
	}
	if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	if err == nil {
		err = json.Unmarshal(a.Is, &is)
	}
	if err != nil {
		return is, fmt.Errorf("%s: %s: %w", c.role, do, err)
	}
	return is, nil
}

// tell is ask where there is nothing to answer.
func (c *child) tell(do string, with any) error {
	_, err := ask[nothing](c, do, with)
	return err
}

// stop ends the process and waits for it.
func (c *child) stop() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// kill ends the process as SIGKILL does, and waits for it.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	c.stop()
}
