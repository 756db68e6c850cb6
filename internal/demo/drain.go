package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"
)

// graceTime is what the tour's shutdown may take. It takes milliseconds, but
// where nobody tells the streams to end.
const graceTime = 3 * time.Second

// underWay is what goes on in the app when its shutdown begins.
type underWay struct {
	stream *http.Response
	events *bufio.Reader
	tunnel *webSocket
	upload *upload
}

// takeDrain shuts the app down in the midst of everything that can last.
func (t *tour) takeDrain(ctx context.Context) error {
	u, err := t.open(ctx)
	defer u.close()
	if err != nil {
		return err
	}
	down := make(chan error, 1)
	go func() {
		grace, cancel := context.WithTimeout(ctx, graceTime)
		defer cancel()
		down <- t.app.shutdown(grace)
	}()
	if _, err := io.Copy(io.Discard, u.events); err != nil { // until it ends
		return errors.Join(fmt.Errorf("the event stream broke off: %w", err), <-down)
	}
	t.say("the event stream has been ended in good order")
	if err := u.tunnel.ended(); err != nil {
		return errors.Join(err, u.upload.finish(""), <-down)
	}
	t.say("the tunnel has been ended")
	if err := errors.Join(u.upload.finish("the rest"), <-down); err != nil {
		return err
	}
	t.say("the upload under way has been finished; shutdown has returned without an error")
	_, err = t.get(ctx, "/")
	if err == nil {
		return errors.New("the app still answers")
	}
	return nil
}

// open begins an event stream, a tunnel and an upload, each as far as to be
// known to the service.
func (t *tour) open(ctx context.Context) (u underWay, err error) {
	if u.stream, err = t.do(ctx, http.MethodGet, "/api/orders/events", http.NoBody); err != nil {
		return u, err
	}
	u.events = bufio.NewReader(u.stream.Body)
	line, err := u.events.ReadString('\n')
	if err == nil {
		err = contains("the first event", line, "data: order 1")
	}
	if err != nil {
		return u, err
	}
	t.say("an event stream: %s", strings.TrimSpace(line))
	if u.tunnel, err = t.openEcho(ctx); err != nil {
		return u, err
	}
	t.say("a tunnel: echo %q", greeting)
	u.upload, err = t.beginUpload(ctx)
	return u, err
}

func (u *underWay) close() {
	if u.stream != nil {
		u.stream.Body.Close()
	}
	if u.tunnel != nil {
		u.tunnel.conn.Close()
	}
	if u.upload != nil {
		_ = u.upload.rest.Close()
	}
}

// ended reads until the other side has closed the WebSocket's connection.
func (ws *webSocket) ended() error {
	_, err := io.Copy(io.Discard, ws.in)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the tunnel stays open: %w", err)
	}
	return nil // by a FIN or by a reset
}

// upload is a request whose body has not been sent whole.
type upload struct {
	rest   *io.PipeWriter
	result chan uploaded
}

type uploaded struct {
	status int
	seen   string
	err    error
}

// beginUpload sends a request's header and waits for the service to ask for
// the body (RFC 9110 §10.1.1): from then on it is under way everywhere.
func (t *tour) beginUpload(ctx context.Context) (*upload, error) {
	body, rest := io.Pipe()
	asked, tell := context.WithCancel(ctx)
	u := &upload{rest: rest, result: make(chan uploaded, 1)}
	req, err := t.request(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: tell}),
		http.MethodPost, "/api/orders/9", body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Expect", "100-continue")
	go func() {
		resp, err := t.client.Do(req)
		if err != nil {
			u.result <- uploaded{err: err}
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		u.result <- uploaded{resp.StatusCode, string(text), err}
	}()
	select {
	case <-asked.Done():
		t.say("an upload: the service waits for its body")
		return u, nil
	case r := <-u.result:
		_ = rest.Close()
		return nil, errors.Join(fmt.Errorf("the upload was answered early: %d %s", r.status, r.seen), r.err)
	}
}

// finish sends the body, and sees that the service got it.
func (u *upload) finish(text string) error {
	_, _ = io.WriteString(u.rest, text) // it fails where the upload has: then that is the result
	_ = u.rest.Close()
	r := <-u.result
	return errors.Join(r.err, is("the upload's status", r.status, http.StatusCreated),
		contains("the service's answer", r.seen, fmt.Sprintf(`"body":%d`, len(text))))
}
