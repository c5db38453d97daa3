package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"larder/store/storepb"
)

// answer is the answer to a question, as hashes.
type answer struct {
	// content is the hash of the whole answer.
	content uint64
	// upTo contains, for Series, the hash of all series up to each one: an answer that ends with an
	// error must start with them.
	upTo []uint64
	// size is the number of series, names or values.
	size int
}

// endpoint is a server that answers questions.
type endpoint struct {
	conn  *grpc.ClientConn
	store storepb.StoreClient
	info  storepb.InfoClient
}

func newEndpoint(conn *grpc.ClientConn) endpoint {
	return endpoint{conn: conn, store: storepb.NewStoreClient(conn),
		info: storepb.NewInfoClient(conn)}
}

// errBadAnswer is wrapped by errors about answers that break a rule for all answers.
var errBadAnswer = errors.New("bad answer")

// ask asks a question. With an error, the answer contains what came before it.
func (e endpoint) ask(ctx context.Context, q *question) (answer, error) {
	switch {
	case q.info:
		resp, err := e.info.Info(ctx, &storepb.InfoRequest{})
		if err != nil {
			return answer{}, err
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(resp)
		if err != nil {
			return answer{}, fmt.Errorf("%w: %w", errBadAnswer, err)
		}
		return answer{content: xxhash.Sum64(b), size: len(resp.LabelSets)}, nil
	case q.names != nil:
		resp, err := e.store.LabelNames(ctx, q.names)
		if err != nil {
			return answer{}, err
		}
		return listed(resp.Names, resp.Warnings)
	case q.values != nil:
		resp, err := e.store.LabelValues(ctx, q.values)
		if err != nil {
			return answer{}, err
		}
		return listed(resp.Values, resp.Warnings)
	default:
		return e.askSeries(ctx, q.series)
	}
}

func listed(list, warnings []string) (answer, error) {
	if len(warnings) > 0 {
		return answer{}, fmt.Errorf("%w: success with warnings %q", errBadAnswer, warnings)
	}
	h := xxhash.New()
	for _, s := range list {
		writeString(h, s)
	}
	return answer{content: h.Sum64(), size: len(list)}, nil
}

// askSeries reads a stream to its end. A Series call is over only with its status.
func (e endpoint) askSeries(ctx context.Context, req *storepb.SeriesRequest) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := e.store.Series(ctx, req)
	if err != nil {
		return answer{}, err
	}
	d := digest{all: xxhash.New()}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			d.endSeries()
			return answer{content: d.all.Sum64(), upTo: d.upTo, size: len(d.upTo)}, nil
		}
		if err != nil {
			// The last series may be incomplete.
			return answer{upTo: d.upTo, size: len(d.upTo)}, err
		}
		switch r := resp.Result.(type) {
		case *storepb.SeriesResponse_Series:
			err = d.add(r.Series)
		case *storepb.SeriesResponse_Batch:
			for _, s := range r.Batch.Series {
				if err = d.add(s); err != nil {
					break
				}
			}
		case *storepb.SeriesResponse_Warning:
			err = fmt.Errorf("%w: warning %q", errBadAnswer, r.Warning)
		default:
			err = fmt.Errorf("%w: an unexpected message of type %T", errBadAnswer, r)
		}
		if err != nil {
			return answer{upTo: d.upTo, size: len(d.upTo)}, err
		}
	}
}

// digest hashes series as they arrive. A series that continues in the next message counts as one.
type digest struct {
	all  hash.Hash64
	last []*storepb.Label // nil before the first series
	upTo []uint64
}

func (d *digest) add(s *storepb.Series) error {
	if !slices.EqualFunc(d.last, s.Labels,
		func(a, b *storepb.Label) bool { return a.Name == b.Name && a.Value == b.Value }) ||
		d.last == nil {
		d.endSeries()
		d.last = s.Labels
		for _, l := range s.Labels {
			writeString(d.all, l.Name)
			writeString(d.all, l.Value)
		}
	}
	for _, c := range s.Chunks {
		writeInt(d.all, c.MinTime)
		writeInt(d.all, c.MaxTime)
		for i, part := range []*storepb.Chunk{c.Raw, c.Count, c.Sum, c.Min, c.Max, c.Counter} {
			if part == nil {
				continue
			}
			if sum := xxhash.Sum64(part.Data); len(part.Data) > 0 && sum != part.Hash {
				return fmt.Errorf("%w: chunk [%d, %d] of %v has hash %016x, its data %016x",
					errBadAnswer, c.MinTime, c.MaxTime, s.Labels, part.Hash, sum)
			}
			writeInt(d.all, int64(i)<<8|int64(part.Type))
			writeInt(d.all, int64(xxhash.Sum64(part.Data)))
		}
	}
	return nil
}

func (d *digest) endSeries() {
	if d.last != nil {
		writeInt(d.all, -1)
		d.upTo = append(d.upTo, d.all.Sum64())
	}
}

func writeInt(h hash.Hash64, n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

func writeString(h hash.Hash64, s string) {
	writeInt(h, int64(len(s)))
	io.WriteString(h, s)
}

// differs returns how an answer, or its part before an error, differs from the expected one; "" if
// it does not.
func (a answer) differs(want answer, err error) string {
	switch {
	case errors.Is(err, errBadAnswer):
		return err.Error()
	case err == nil && a.content == want.content && a.size == want.size:
		return ""
	case err == nil && a.size == 0 && want.size > 0:
		return fmt.Sprintf("an empty success, want %d", want.size)
	case err == nil:
		return fmt.Sprintf("a success with %d items that differs from the answer of %d", a.size,
			want.size)
	case len(a.upTo) > len(want.upTo):
		return fmt.Sprintf("%d series before the error, the answer has %d", len(a.upTo),
			len(want.upTo))
	case len(a.upTo) > 0 && a.upTo[len(a.upTo)-1] != want.upTo[len(a.upTo)-1]:
		return fmt.Sprintf("the %d series before the error are not the answer's first", len(a.upTo))
	}
	return ""
}
