// Package floor is the least that a server can do for an answer: the frames, already encoded, sent
// by plain grpc-go. What it costs is what no gateway that speaks gRPC can go below.
//
// Record keeps the answer of a gateway in a folder; Serve answers the same request with it.
package floor

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"larder/interop/internal/compare/client"
)

// file is where the answer to a call is kept.
func file(dir, method string, request []byte) string {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, method) // a hash never fails
	_, _ = h.Write(request)
	return filepath.Join(dir, hex.EncodeToString(h.Sum(nil))+".frames")
}

// Record asks a gateway and keeps its answer in dir.
func Record(ctx context.Context, dir string, c *client.Client, call client.Call) error {
	f, err := os.Create(file(dir, call.Method, call.Request))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	var failed error
	_, err = c.Do(ctx, call, func(m []byte) {
		_, e1 := w.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(m))))
		_, e2 := w.Write(m)
		failed = errors.Join(failed, e1, e2)
	})
	return errors.Join(err, failed, w.Flush(), f.Close())
}

// Serve answers at the listener with what is kept in dir until ctx ends.
func Serve(ctx context.Context, l net.Listener, dir string) error {
	s := &server{dir: dir, answers: map[string][]client.Message{}}
	srv := grpc.NewServer(
		grpc.MaxSendMsgSize(math.MaxInt32), grpc.ForceServerCodecV2(client.Raw{}),
		grpc.UnknownServiceHandler(s.handle),
	)
	stop := context.AfterFunc(ctx, srv.Stop)
	defer stop()
	return srv.Serve(l)
}

type server struct {
	dir     string
	mu      sync.Mutex
	answers map[string][]client.Message // by file
}

func (s *server) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var request client.Message
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	frames, err := s.answer(file(s.dir, method, request))
	if err != nil {
		return status.Errorf(codes.NotFound, "no recorded answer to this request: %v", err)
	}
	for _, f := range frames {
		if err := stream.SendMsg(f); err != nil {
			return err
		}
	}
	return nil
}

// answer returns the frames in a file, which is read once.
func (s *server) answer(name string) ([]client.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if frames, ok := s.answers[name]; ok {
		return frames, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var frames []client.Message
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int(binary.LittleEndian.Uint32(b))
		if b = b[4:]; len(b) < n {
			return nil, io.ErrUnexpectedEOF
		}
		frames = append(frames, b[:n:n])
		b = b[n:]
	}
	s.answers[name] = frames
	return frames, nil
}
