package block

import (
	"context"

	"larder/internal/pagecache"
)

// WarmPages reads pages of a file of the block into the cache. File 0 is the index, the others are
// the chunk files, counted from 1. Spans are sorted; what lies behind the end of the file is left
// out.
func (b *Block) WarmPages(
	ctx context.Context, file int, spans []pagecache.Span, how pagecache.Warming,
	acct *pagecache.Account,
) error {
	var pages Pages = b.deps.Chunks
	var obj pagecache.Object
	if file == 0 {
		h, release, err := b.Header(ctx)
		if err != nil {
			return err
		}
		size := h.IndexSize()
		release()
		pages = b.deps.Index
		obj = b.deps.Index.Object(b.meta.Number, b.meta.ID, b.meta.Content, size)
	} else {
		var err error
		if obj, err = b.chunkObject(ctx, file-1); err != nil {
			return b.wrap(err)
		}
	}
	var within []pagecache.Span
	for _, s := range spans {
		if s.End = min(s.End, obj.Size); s.Off < s.End {
			within = append(within, s)
		}
	}
	if err := pages.Warm(ctx, obj, within, how, acct); err != nil {
		return b.wrap(err)
	}
	return nil
}
