package store

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"larder/store/catalog"
	"larder/store/storepb"
)

// componentType is the type by which Queriers recognise a store gateway.
const componentType = "store"

// Info implements storepb.InfoServer. It returns Unavailable until the catalog has its first view,
// so that Queriers retry.
func (s *Server) Info(context.Context, *storepb.InfoRequest) (*storepb.InfoResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	view := s.opts.Catalog.View()
	info := &storepb.StoreInfo{
		MinTime:                      math.MaxInt64,
		MaxTime:                      math.MinInt64,
		SupportsSharding:             true,
		SupportsWithoutReplicaLabels: true,
	}
	if len(view.Blocks) > 0 {
		info.MinTime, info.MaxTime = view.MinTime, view.MaxTime
	}
	// Even an empty range is clamped, same as in Thanos.
	info.MinTime, info.MaxTime = s.clamp(info.MinTime, info.MaxTime)
	resp := &storepb.InfoResponse{ComponentType: componentType, Store: info}
	for _, set := range view.Sets {
		resp.LabelSets = append(resp.LabelSets, labelSet(set.Labels))
		info.TsdbInfos = appendTSDBInfos(info.TsdbInfos, set)
	}
	return resp, nil
}

// appendTSDBInfos appends the time ranges that the blocks of a label set cover. Ranges that touch
// or overlap are joined. (Thanos shrinks a range if a block lies inside another.)
func appendTSDBInfos(dst []*storepb.TSDBInfo, set *catalog.Set) []*storepb.TSDBInfo {
	var blocks []*catalog.Block
	for _, of := range set.ByResolution {
		blocks = append(blocks, of...)
	}
	slices.SortFunc(blocks,
		func(a, b *catalog.Block) int { return cmp.Compare(a.MinTime, b.MinTime) })
	var cur *storepb.TSDBInfo
	for _, b := range blocks {
		if cur == nil || b.MinTime > cur.MaxTime {
			cur = &storepb.TSDBInfo{
				Labels:  labelSet(set.Labels),
				MinTime: b.MinTime,
				MaxTime: b.MaxTime,
			}
			dst = append(dst, cur)
			continue
		}
		cur.MaxTime = max(cur.MaxTime, b.MaxTime)
	}
	return dst
}

func labelSet(ls labels.Labels) *storepb.ZLabelSet {
	out := &storepb.ZLabelSet{}
	ls.Range(func(l labels.Label) {
		out.Labels = append(out.Labels, &storepb.Label{Name: l.Name, Value: l.Value})
	})
	return out
}
