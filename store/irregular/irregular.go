package irregular

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"larder/internal/localfs"
	"larder/internal/panics"
	"larder/internal/sealed"
)

const (
	fileName = "irregular.blocks"
	// maxFileBytes bounds the size of the file. It is enough for some 60,000 findings.
	maxFileBytes = 16 << 20
	// maxFindings bounds the findings, so that the file never exceeds maxFileBytes.
	maxFindings = 50_000
	// maxWhat bounds the text of a finding, in bytes.
	maxWhat = 128
)

// fileFormat is the format of the file. A file of another version is ignored.
func fileFormat() sealed.Format { return sealed.Format{Kind: "irregular", Version: 1} }

// Options of Blocks. The zero value keeps findings in memory alone.
type Options struct {
	// Dir is the directory of the file. Without one, findings last as long as the process.
	Dir localfs.Dir
	// LockDir is called before the file is written. Its error counts as a failed write. nil: no
	// other process uses Dir.
	LockDir func() error

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// key is one content of a block.
type key struct {
	id      ulid.ULID
	content uint64
}

// finding is an entry of the file.
type finding struct {
	ID      ulid.ULID `json:"block"`
	Content uint64    `json:"content"`
	What    string    `json:"what"`
}

// Blocks remembers irregular blocks. Its methods may be called from any goroutine. A nil Blocks
// remembers nothing.
type Blocks struct {
	opts   Options
	log    *slog.Logger
	panics *panics.Guard
	writes sync.WaitGroup

	saving sync.Mutex // held while the file is written

	mu       sync.Mutex // guards following
	findings map[key]string
	dirty    bool // the file lacks a change
	closed   bool
}

// Open reads the file in Options.Dir, if there is one. The caller must call Close.
func Open(opts Options) *Blocks {
	if opts.LockDir == nil {
		opts.LockDir = func() error { return nil }
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Blocks{
		opts:     opts,
		log:      opts.Logger.With("component", "irregular"),
		findings: map[key]string{},
	}
	b.panics = panics.New("irregular", opts.Logger, opts.Registerer)
	promauto.With(opts.Registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_blocks_irregular",
		Help: "Number of served blocks whose series or labels are out of order, repeated or empty. Their answers are normalised and sorted in memory.",
	}, func() float64 { return float64(b.count()) })
	if !opts.Dir.IsZero() {
		b.load()
	}
	return b
}

// load reads the file. If that fails, requests find the irregular blocks again.
func (b *Blocks) load() {
	if err := sealed.RemoveTemps(b.opts.Dir, fileName); err != nil {
		b.log.Warn("cannot remove temporary files of irregular blocks", "err", err)
	}
	payload, err := fileFormat().Read(b.opts.Dir, fileName, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var saved []finding
	if err == nil {
		if err = json.Unmarshal(payload, &saved); err != nil {
			err = fmt.Errorf("%s: %w: %w", b.opts.Dir.Path(fileName), sealed.ErrDamaged, err)
		}
	}
	if err != nil {
		b.log.Warn("cannot read the irregular blocks of the last run", "err", err)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range saved[:min(len(saved), maxFindings)] {
		b.findings[key{f.ID, f.Content}] = f.What
	}
}

// What returns the finding about a block with the given content, and false if there is none.
func (b *Blocks) What(id ulid.ULID, content uint64) (string, bool) {
	if b == nil {
		return "", false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	what, ok := b.findings[key{id, content}]
	return what, ok
}

// Note records that a block with the given content is irregular. what describes the irregularity
// without naming the block. The first finding of a block stays.
func (b *Blocks) Note(id ulid.ULID, content uint64, what string) {
	if b == nil {
		return
	}
	what = strings.ToValidUTF8(what[:min(len(what), maxWhat)], "\ufffd")
	if !b.add(key{id, content}, what) {
		return
	}
	b.log.Warn("irregular block", "block", id, "found", what)
	b.save()
}

func (b *Blocks) add(k key, what string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.findings[k]; known || len(b.findings) >= maxFindings {
		return false
	}
	b.findings[k] = what
	return true
}

// Retain removes the findings for which keep returns false, because their blocks are no longer
// served.
func (b *Blocks) Retain(keep func(id ulid.ULID, content uint64) bool) {
	if b == nil {
		return
	}
	b.mu.Lock()
	before := len(b.findings)
	for k := range b.findings {
		if !keep(k.id, k.content) {
			delete(b.findings, k)
		}
	}
	changed := len(b.findings) != before
	b.mu.Unlock()
	if changed {
		b.save()
	}
}

func (b *Blocks) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.findings)
}

// save writes the file in the background: a request does not wait for the disk.
func (b *Blocks) save() {
	if b.opts.Dir.IsZero() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.dirty = true
	b.writes.Go(func() { _ = b.panics.Do(b.write) })
}

// write writes the file unless another writer has written the latest change already.
func (b *Blocks) write() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	saved, dirty := b.pending()
	if !dirty {
		return nil
	}
	payload, err := json.Marshal(saved)
	if err == nil {
		err = b.opts.LockDir()
	}
	if err == nil {
		err = fileFormat().Write(b.opts.Dir, fileName, payload, true)
	}
	if err != nil {
		b.log.Warn("cannot save the irregular blocks", "err", err)
	}
	return nil
}

// pending returns all findings sorted by block if the file lacks a change, and marks the change as
// written.
func (b *Blocks) pending() (saved []finding, dirty bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	dirty, b.dirty = b.dirty, false
	if !dirty {
		return nil, false
	}
	saved = make([]finding, 0, len(b.findings))
	for k, what := range b.findings {
		saved = append(saved, finding{k.id, k.content, what})
	}
	slices.SortFunc(saved, func(a, b finding) int { return a.ID.Compare(b.ID) })
	return saved, true
}

// Close waits for the file to be written. Later findings are not saved.
func (b *Blocks) Close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.writes.Wait()
}
