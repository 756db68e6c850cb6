package conformance_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// connectFeatures are what of the suite of Connect, gRPC and gRPC-Web is run: all
// that goes over TCP, and not again over TLS, which ends at the gateway.
const connectFeatures = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]
  supportsTls: false
  supportsHalfDuplexBidiOverHttp1: true
`

// Of the server that is tested only its half that is a gateway is not the
// suite's own: what its checking client sees, it sees through that.
func TestConnectServer(t *testing.T) {
	suite(t, "server", "referenceserver")
}

// What the suite's checking server is sent comes from a client of the suite's
// through the gateway, and so do its answers, the odd among them.
func TestConnectClient(t *testing.T) {
	suite(t, "client", "referenceclient",
		"--known-failing", "**/nonexistent-http-status-code", // a status above 599 is a 502
	)
}

func suite(t *testing.T, mode, reference string, flags ...string) {
	dir := built(t, "connectrpc.com/conformance/cmd/connectconformance", "connectrpc.com/conformance/cmd/"+reference)
	features := filepath.Join(dir, "features.yaml")
	require.NoError(t, os.WriteFile(features, []byte(connectFeatures), 0o600))
	self, err := os.Executable()
	require.NoError(t, err)
	args := append([]string{"--mode", mode, "--conf", features, "--max-servers", "2"}, flags...)
	out := run(t, filepath.Join(dir, "connectconformance"), append(args, "--", self, "connect-"+mode, filepath.Join(dir, reference))...)
	t.Log(string(tail([]byte(out))))
}

// Fields of the suite's messages, by the number that each has.
const (
	serverRequestVersion = 2
	serverResponseHost   = 1
	serverResponsePort   = 2
	clientRequestVersion = 2
	clientRequestHost    = 6
	clientRequestPort    = 7
)

const versionHTTP2 = 2

// connectServer is the server of one part of the suite: the suite's own, named by
// args, behind a gateway. It ends when the suite says so.
func connectServer(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	in, err := readMessage(os.Stdin)
	if err != nil {
		return err
	}
	origin := child(ctx, args[0])
	to, err := origin.StdinPipe()
	if err != nil {
		return err
	}
	from, err := origin.StdoutPipe()
	if err != nil {
		return err
	}
	if err = origin.Start(); err != nil {
		return err
	}
	if err = writeMessage(to, in); err != nil {
		return err
	}
	out, err := readMessage(from)
	if err != nil {
		return err
	}
	f, err := frontOf(out, serverResponseHost, serverResponsePort, number(in, serverRequestVersion))
	if err != nil {
		return err
	}
	if err = writeMessage(os.Stdout, f.instead(out, serverResponseHost, serverResponsePort)); err != nil {
		return err
	}
	if err = origin.Wait(); ctx.Err() != nil {
		err = f.close()
	}
	return err
}

// connectClient is the client of the suite: its own, named by args, which is sent to
// gateways instead of the servers that it is to ask.
func connectClient(args []string) error {
	client := child(context.Background(), args[0])
	client.Stdout = os.Stdout
	to, err := client.StdinPipe()
	if err != nil {
		return err
	}
	if err = client.Start(); err != nil {
		return err
	}
	fronts := map[string]*front{}
	for {
		in, err := readMessage(os.Stdin)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		version := number(in, clientRequestVersion)
		key := fmt.Sprint(number(in, clientRequestPort), version)
		if fronts[key] == nil {
			if fronts[key], err = frontOf(in, clientRequestHost, clientRequestPort, version); err != nil {
				return err
			}
		}
		if err = writeMessage(to, fronts[key].instead(in, clientRequestHost, clientRequestPort)); err != nil {
			return err
		}
	}
	err = errors.Join(to.Close(), client.Wait())
	for _, f := range fronts {
		err = errors.Join(err, f.close())
	}
	return err
}

// child is a program that ends with ctx and tells its complaints to whoever hears
// ours.
func child(ctx context.Context, name string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name)
	cmd.Stderr = os.Stderr
	return cmd
}

// frontOf makes a front for the server that these fields of m name.
func frontOf(m []byte, host, port protowire.Number, version uint64) (*front, error) {
	addr := net.JoinHostPort(string(text(m, host)), strconv.FormatUint(number(m, port), 10))
	return newFront("http://"+addr, version == versionHTTP2)
}

// instead returns m with the front in place of the server: of a field that is there
// twice, the last counts.
func (f *front) instead(m []byte, host, port protowire.Number) []byte {
	m = protowire.AppendString(protowire.AppendTag(m, host, protowire.BytesType), "127.0.0.1")
	return protowire.AppendVarint(protowire.AppendTag(m, port, protowire.VarintType), uint64(f.port))
}

// number returns a field of m that is a number.
func number(m []byte, field protowire.Number) uint64 {
	n, _ := protowire.ConsumeVarint(value(m, field))
	return n
}

// text returns a field of m that is a string.
func text(m []byte, field protowire.Number) []byte {
	s, _ := protowire.ConsumeBytes(value(m, field))
	return s
}

// value returns what m holds from the value of a field on; nil: it has none.
func value(m []byte, field protowire.Number) []byte {
	for len(m) > 0 {
		num, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			break
		}
		if m = m[n:]; num == field {
			return m
		}
		if n = protowire.ConsumeFieldValue(num, kind, m); n < 0 {
			break
		}
		m = m[n:]
	}
	return nil
}

// maxMessage is more than the suite's messages have.
const maxMessage = 64 << 20

// readMessage reads a message of the suite's, which comes after its length.
func readMessage(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	m := make([]byte, n)
	_, err := io.ReadFull(r, m)
	return m, err
}

func writeMessage(w io.Writer, m []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), m...))
	return err
}
