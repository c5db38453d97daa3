package prefetch

import (
	"bytes"
	"context"
	"errors"
	"time"

	"larder/internal/bucket/slots"
	"larder/internal/pagecache"
	"larder/internal/tsdbfmt"
	"larder/store/indexheader"
)

const (
	// maxGap is the longest stretch of pages that are there and are read along, because that takes
	// less than another request.
	maxGap = 128 << 10
	// busyFor is how often requests that wait are looked at.
	busyFor = 20 * time.Millisecond
)

var (
	// errNoHeader: the header could not be built. The builder has logged why.
	errNoHeader = errors.New("the block has no index header")
	// errPaused: the disk does not write.
	errPaused = errors.New("the disk cache does not write")
)

// sections returns the parts of an index that requests read through pages, in the order in which
// they need them.
func sections(toc tsdbfmt.TOC, size int64) []pagecache.Span {
	var spans []pagecache.Span
	for _, off := range []int64{toc.Postings, toc.Series} {
		if off == 0 {
			continue
		}
		if end := toc.SectionEnd(off, size); end > off {
			spans = append(spans, pagecache.Span{Off: off, End: end})
		}
	}
	return spans
}

// advance makes the next read for a block, if any. It reports whether none is left.
func (p *Prefetcher) advance(ctx context.Context, b *block) (done bool, err error) {
	if !b.started {
		toc, ok := p.o.Headers.TOC(b.source())
		if !ok {
			return false, errNoHeader
		}
		b.started, b.left = true, sections(toc, b.meta.IndexSize)
	}
	obj := p.o.Pages.Object(b.meta.Number, b.meta.ID, b.meta.Content, b.meta.IndexSize)
	page := int64(p.o.Pages.PageSize())
	for len(b.left) > 0 && ctx.Err() == nil {
		span := &b.left[0]
		if span.Off >= span.End {
			b.left = b.left[1:]
			continue
		}
		window := pagecache.Span{Off: span.Off / page * page}
		window.End = min(window.Off+p.o.ReadBytes, (span.End+page-1)/page*page, obj.Size)
		missing, present := p.missing(obj, window, page)
		if missing.End > missing.Off {
			due := p.due(missing.End - missing.Off)
			if err := p.turn(ctx, missing.End-missing.Off, due); err != nil {
				return false, err
			}
			// Requests may have read some of it meanwhile.
			if missing, present = p.missing(obj, window, page); missing.End > missing.Off {
				p.metrics.present.Add(float64(present))
				span.Off, err = p.read(ctx, obj, missing, due)
				return false, err
			}
		}
		p.metrics.present.Add(float64(present))
		span.Off = window.End
	}
	return len(b.left) == 0, nil
}

// missing returns the first stretch of pages of a window that the disk does not have, and the
// number of pages before it. Short stretches of pages that it has are part of it.
func (p *Prefetcher) missing(
	obj pagecache.Object, window pagecache.Span, page int64,
) (missing pagecache.Span, present int) {
	keys := p.o.Pages.Keys(obj, window)
	first, last := -1, -1
	for i, there := range p.o.Disk.Has(keys) {
		switch {
		case there:
		case first < 0:
			first, last = i, i
		case int64(i-last-1)*page <= maxGap:
			last = i
		}
		if first >= 0 && int64(i-last)*page > maxGap {
			break
		}
	}
	if first < 0 {
		return pagecache.Span{}, len(keys)
	}
	return pagecache.Span{
		Off: window.Off + int64(first)*page,
		End: min(window.Off+int64(last+1)*page, obj.Size),
	}, first
}

// turn waits until the disk has space for n bytes, and until due while requests wait.
func (p *Prefetcher) turn(ctx context.Context, n int64, due time.Time) error {
	if p.o.Disk.Await(ctx, n) != nil {
		return errPaused
	}
	for p.o.Busy() && ctx.Err() == nil && time.Now().Before(due) {
		time.Sleep(min(busyFor, time.Until(due)))
	}
	return ctx.Err()
}

// readingKey is the key of the mark that Reading looks for.
type readingKey struct{}

// Reading reports whether a read of the bucket with ctx was started by a Prefetcher, not by a
// request. A request that needs the same pages meanwhile waits for it, and does not change that.
func Reading(ctx context.Context) bool { return ctx.Value(readingKey{}) != nil }

// read reads pages of a stretch into the disk cache, and returns how far it came. At due the read
// becomes demand.
func (p *Prefetcher) read(
	ctx context.Context, obj pagecache.Object, span pagecache.Span, due time.Time,
) (to int64, err error) {
	ahead, need := slots.LookAhead(context.WithValue(ctx, readingKey{}, true))
	if p.o.MinRate > 0 {
		timer := time.AfterFunc(time.Until(due), func() {
			p.metrics.demand.Inc()
			need()
		})
		defer timer.Stop()
	}
	done, values, err := p.o.Pages.Prefetch(ahead, obj, span, p.o.Disk.Offer)
	if err != nil {
		return span.Off, err
	}
	if len(values) == 0 {
		return span.End, nil // requests read all of it
	}
	p.metrics.reads.Inc()
	p.metrics.bytes.Add(float64(done.End - done.Off))
	p.metrics.read.Add(float64(len(values)))
	// The queue has most of them already.
	if p.o.Disk.Fill(ctx, p.o.Pages.Keys(obj, done), values) != nil {
		return span.Off, errPaused
	}
	return done.End, nil
}

// due returns when a read of n bytes must begin so that MinRate is kept.
func (p *Prefetcher) due(n int64) time.Time {
	const never = 100 * 365 * 24 * time.Hour
	if p.o.MinRate < 0 {
		return time.Now().Add(never)
	}
	return time.Now().Add(time.Duration(float64(n) / float64(p.o.MinRate) * float64(time.Second)))
}

// Keep offers what the build of a header has read of an index to the disk, see
// indexheader.Options.OnRead. A build in the background may be that of a block whose index does not
// fit in MaxBytes.
func (p *Prefetcher) Keep(rd indexheader.Read) {
	size := rd.Source.IndexSize
	if size == 0 || rd.Background && !p.fits(rd.Source) {
		return
	}
	obj := p.o.Pages.Object(rd.Source.Number, rd.Source.ID, rd.Source.Content, size)
	page := int64(p.o.Pages.PageSize())
	end := rd.Off + int64(len(rd.Bytes))
	for _, s := range sections(rd.TOC, size) {
		span := pagecache.Span{Off: max(s.Off/page*page, rd.Off), End: min(s.End, end)}
		keys := p.o.Pages.Keys(obj, span)
		for i := range keys {
			off := span.Off + int64(i)*page
			if to := min(off+page, size); to <= end {
				p.o.Disk.Offer(keys[i], bytes.Clone(rd.Bytes[off-rd.Off:to-rd.Off]))
			}
		}
	}
}

// fits reports whether a block is among the newest, whose indexes fit in MaxBytes together.
func (p *Prefetcher) fits(src indexheader.Source) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return src.MaxTime >= p.since
}
