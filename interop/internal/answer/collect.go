package answer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/gogo/protobuf/types"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/thanos/pkg/info/infopb"
	"github.com/thanos-io/thanos/pkg/store/hintspb"
	"github.com/thanos-io/thanos/pkg/store/labelpb"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc/status"

	"larder/interop/internal/gateway"
	"larder/interop/internal/query"
)

// Ask sends the request and returns the whole answer. It returns an error only if the answer cannot
// be understood; a rejection is an answer.
func Ask(ctx context.Context, c *gateway.Client, q *query.Query) (*Answer, error) {
	a := &Answer{}
	var err error
	switch {
	case q.Series != nil:
		err = a.series(ctx, c.Store, q.Series)
	case q.Names != nil:
		var resp *storepb.LabelNamesResponse
		if resp, err = c.Store.LabelNames(ctx, q.Names); err == nil {
			a.List, a.Warnings = resp.Names, resp.Warnings
			var h hintspb.LabelNamesResponseHints
			if err := unpack(resp.Hints, &h); err != nil {
				return nil, err
			}
			if resp.Hints != nil {
				a.Hints = newHints(h.QueriedBlocks, nil)
			}
		}
	case q.Values != nil:
		var resp *storepb.LabelValuesResponse
		if resp, err = c.Store.LabelValues(ctx, q.Values); err == nil {
			a.List, a.Warnings = resp.Values, resp.Warnings
			var h hintspb.LabelValuesResponseHints
			if err := unpack(resp.Hints, &h); err != nil {
				return nil, err
			}
			if resp.Hints != nil {
				a.Hints = newHints(h.QueriedBlocks, nil)
			}
		}
	default:
		var resp *infopb.InfoResponse
		if resp, err = c.Info.Info(ctx, &infopb.InfoRequest{}); err == nil {
			a.info(resp)
		}
	}
	var odd *oddity
	if errors.As(err, &odd) {
		return nil, odd
	}
	s, _ := status.FromError(err)
	a.Code, a.Message = s.Code(), s.Message()
	return a, nil
}

// oddity is an error: an answer that cannot be understood.
type oddity struct{ what string }

func (o *oddity) Error() string { return o.what }

func unpack(any *types.Any, into interface {
	Reset()
	String() string
	ProtoMessage()
}) error {
	if any == nil {
		return nil
	}
	if err := types.UnmarshalAny(any, into); err != nil {
		return &oddity{fmt.Sprintf("response hints of type %s: %v", any.TypeUrl, err)}
	}
	return nil
}

func (a *Answer) series(
	ctx context.Context, c storepb.StoreClient, req *storepb.SeriesRequest,
) error {
	stream, err := c.Series(ctx, req)
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		f := Frame{Size: m.Size(), Kind: "unknown"}
		switch {
		case m.GetSeries() != nil:
			f.Kind, f.Series = "series", 1
			a.Series = append(a.Series, newSeries(m.GetSeries(), len(a.Frames)))
		case m.GetBatch() != nil:
			f.Kind, f.Batch, f.Series = "series", true, len(m.GetBatch().Series)
			for _, s := range m.GetBatch().Series {
				a.Series = append(a.Series, newSeries(s, len(a.Frames)))
			}
		case m.GetHints() != nil:
			f.Kind = "hints"
			var h hintspb.SeriesResponseHints
			if err := unpack(m.GetHints(), &h); err != nil {
				return err
			}
			if a.Hints != nil {
				return &oddity{"a second frame of hints"}
			}
			a.Hints = newHints(h.QueriedBlocks, h.QueryStats)
		case m.GetWarning() != "":
			f.Kind = "warning"
			a.Warnings = append(a.Warnings, m.GetWarning())
		}
		a.Frames = append(a.Frames, f)
	}
}

func newSeries(s *storepb.Series, frame int) Series {
	out := Series{Labels: labelpb.ZLabelsToPromLabels(s.Labels).Copy(), Frame: frame}
	for i := range s.Chunks {
		c := &s.Chunks[i]
		x := Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Size: c.Size()}
		for j, p := range []*storepb.Chunk{c.Raw, c.Count, c.Sum, c.Min, c.Max, c.Counter} {
			if p != nil {
				x.Parts[j] = &Part{Type: int32(p.Type), Data: p.Data, Hash: p.Hash}
			}
		}
		out.Chunks = append(out.Chunks, x)
	}
	return out
}

func (a *Answer) info(r *infopb.InfoResponse) {
	i := &Info{Component: r.ComponentType}
	set := func(z labelpb.ZLabelSet) string {
		return labels.New(labelpb.ZLabelsToPromLabels(z.Labels)...).String()
	}
	for _, ls := range r.LabelSets {
		i.LabelSets = append(i.LabelSets, set(ls))
	}
	if s := r.Store; s != nil {
		i.MinTime, i.MaxTime, i.Sharding = s.MinTime, s.MaxTime, s.SupportsSharding
		i.Without = s.SupportsWithoutReplicaLabels
		for _, t := range s.TsdbInfos {
			i.TSDBs = append(i.TSDBs, TSDB{set(t.Labels), t.MinTime, t.MaxTime})
		}
		sort.Slice(i.TSDBs, func(a, b int) bool {
			x, y := i.TSDBs[a], i.TSDBs[b]
			if x.Labels != y.Labels {
				return x.Labels < y.Labels
			}
			return x.MinTime < y.MinTime
		})
	}
	for name, there := range map[string]bool{
		"rules": r.Rules != nil, "targets": r.Targets != nil, "metadata": r.MetricMetadata != nil,
		"exemplars": r.Exemplars != nil, "query": r.Query != nil,
	} {
		if there {
			i.Others = append(i.Others, name)
		}
	}
	sort.Strings(i.Others)
	a.Info = i
}
