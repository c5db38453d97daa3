package tour

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"larder/store/storepb"
)

// Tour asks questions over one connection.
type Tour struct {
	conn  grpc.ClientConnInterface
	store storepb.StoreClient
	info  storepb.InfoClient
}

// New returns a tour of the server at the other end of conn. Answers may be of any size: dial with
// grpc.MaxCallRecvMsgSize(math.MaxInt32) as default call option.
func New(conn grpc.ClientConnInterface) *Tour {
	return &Tour{conn: conn, store: storepb.NewStoreClient(conn), info: storepb.NewInfoClient(conn)}
}

// WaitReady returns when the server reports that it serves.
func (t *Tour) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := healthpb.NewHealthClient(t.conn).
		Watch(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("health of the server: %w", err)
	}
	for {
		resp, err := watch.Recv()
		if err != nil {
			return fmt.Errorf("health of the server: %w", err)
		}
		if resp.Status == healthpb.HealthCheckResponse_SERVING {
			return nil
		}
	}
}

// Answer is the answer to a question.
type Answer struct {
	// FirstFrame and Total are the times until the first message and until the end, the client's
	// decoding included.
	FirstFrame, Total time.Duration
	// Frames is the number of messages, Bytes their size.
	Frames, Bytes int
	// Series, Chunks and Samples are counts of a Series answer. Samples counts the first aggregate
	// of each chunk.
	Series, Chunks, Samples int
	// Text describes the rest of the answer.
	Text string
	// Err is a failure, or a broken promise in the answer.
	Err error
}

// Question is one question.
type Question struct {
	Name string
	// Fails is the expected code; OK for an answer.
	Fails codes.Code
	ask   func(ctx context.Context, t *Tour) Answer
}

// Result is a question with its first and second answer.
type Result struct {
	Question   Question
	Cold, Warm Answer
}

// Take asks every question once, in order, and then all of them a second time. Later questions of
// the first round benefit from what earlier ones have read.
func (t *Tour) Take(ctx context.Context, questions []Question) ([]Result, error) {
	results := make([]Result, len(questions))
	for round := range 2 {
		for i, q := range questions {
			a := q.ask(ctx, t)
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if code := status.Code(a.Err); a.Err != nil && code == q.Fails && code != codes.OK {
				a.Text, a.Err = a.Err.Error(), nil
			} else if a.Err == nil && q.Fails != codes.OK {
				a.Err = fmt.Errorf("an answer came back where %s should have", q.Fails)
			}
			results[i].Question = q
			if round == 0 {
				results[i].Cold = a
			} else {
				results[i].Warm = a
			}
		}
	}
	return results, nil
}

// Check returns the first failure among the results. It also fails if the second answer to a
// question differs from the first.
func Check(results []Result) error {
	for _, r := range results {
		for _, a := range []Answer{r.Cold, r.Warm} {
			if a.Err != nil {
				return fmt.Errorf("%s: %w", r.Question.Name, a.Err)
			}
		}
		c, w := r.Cold, r.Warm
		if c.Series != w.Series || c.Chunks != w.Chunks || c.Samples != w.Samples ||
			c.Text != w.Text {
			return fmt.Errorf(
				"%s: the second answer differs: %d series, %d chunks, %d samples, %q after %d, %d, %d, %q",
				r.Question.Name, w.Series, w.Chunks, w.Samples, w.Text, c.Series, c.Chunks,
				c.Samples, c.Text,
			)
		}
	}
	return nil
}

// Print writes the results as a table.
func Print(w io.Writer, results []Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(
		tw, "COLD first\tCOLD all\tWARM first\tWARM all\tseries\tchunks\tsamples\tKB\t  what\n")
	for _, r := range results {
		a := r.Warm
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n",
			ms(r.Cold.FirstFrame), ms(r.Cold.Total), ms(a.FirstFrame), ms(a.Total),
			count(a.Series), count(a.Chunks), count(a.Samples), count((a.Bytes+999)/1000), what(r))
	}
	return tw.Flush()
}

// what describes a result in words.
func what(r Result) string {
	s := r.Question.Name
	for _, a := range []Answer{r.Cold, r.Warm} {
		if a.Err != nil {
			return s + ": FAILED: " + strings.TrimSpace(a.Err.Error())
		}
	}
	if r.Warm.Text != "" {
		s += ": " + r.Warm.Text
	}
	return s
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func count(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// span is the part of Info about the server's data.
type span struct {
	min, max int64
	sets     []string
}

func (t *Tour) span(ctx context.Context) (span, error) {
	resp, err := t.info.Info(ctx, &storepb.InfoRequest{})
	if err != nil {
		return span{}, err
	}
	s := span{min: math.MaxInt64, max: math.MinInt64}
	if st := resp.GetStore(); st != nil {
		s.min, s.max = st.MinTime, st.MaxTime
	}
	if s.min > s.max {
		return s, fmt.Errorf("the server has no data")
	}
	for _, set := range resp.LabelSets {
		var b strings.Builder
		for i, l := range set.Labels {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "%s=%q", l.Name, l.Value)
		}
		s.sets = append(s.sets, "{"+b.String()+"}")
	}
	slices.Sort(s.sets)
	return s, nil
}
