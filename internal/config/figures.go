package config

import (
	"context"
	"log/slog"

	"github.com/alecthomas/units"
)

// Figure is the limit of one use of memory, under its name in the log.
type Figure struct {
	Name  string
	Bytes int64
}

// Figures returns the limits that the log shows at the start, and the pages later.
func (m *Memory) Figures() []Figure {
	var out []Figure
	add := func(name string, bytes int64) {
		out = append(out, Figure{Name: name, Bytes: int64(wholeMiB(bytes))})
	}
	for k := range Kinds {
		add(k.String(), m.CacheBytes[k])
	}
	if m.IndexWrites != nil {
		add("index_memcached_writes", m.IndexWrites.Bytes)
	}
	if m.ChunkWrites != nil {
		add("chunk_memcached_writes", m.ChunkWrites.Bytes)
	}
	if m.Disk.Total.Bytes > 0 {
		add("disk_cache_memory", m.Disk.Memory.Bytes)
	}
	add("requests", m.Requests.Bytes)
	return out
}

// Log logs the figures in the line "memory" and warns of caches that are too small. limit and
// scaled are those of Fit. The line is a warning if the defaults were scaled down to fit.
func (m *Memory) Log(logger *slog.Logger, limit int64, scaled bool) {
	var attrs []any
	for _, f := range m.Figures() {
		attrs = append(attrs, f.Name, units.Base2Bytes(f.Bytes))
	}
	if limit > 0 {
		attrs = append(attrs, "limit", wholeMiB(limit))
	}
	level := slog.LevelInfo
	if scaled {
		level, attrs = slog.LevelWarn, append(attrs, "scaled", true)
	}
	logger.Log(context.Background(), level, "memory", attrs...)
	for k := range Kinds {
		m.warnTooSmall(k, logger)
	}
}

// warnTooSmall warns that a cache is too small and names what to change. It does not warn of a
// cache that got nothing because others took a small whole: the figures show that. It does warn
// if the page size alone made the whole too small.
func (m *Memory) warnTooSmall(k Kind, logger *slog.Logger) {
	n, least := m.CacheBytes[k], m.minBytes(k)
	if m.sizedBy[k] == "" || n >= least || n == 0 && least == k.minBytes() {
		return
	}
	attrs := []any{
		"kind", k.String(), "size", units.Base2Bytes(n), "least", units.Base2Bytes(least),
		"raise", m.sizedBy[k],
	}
	if least > k.minBytes() {
		attrs = append(attrs, "or_lower", m.Page[k].String())
	}
	logger.Warn("memory: cache is too small to be effective", attrs...)
}

// WarnAboveMachine warns if the process may use more memory than the machine has. limit is that of
// Fit. machine is the memory of the machine in bytes, 0 if it is not known.
func (m *Memory) WarnAboveMachine(logger *slog.Logger, limit, machine int64) {
	all := m.sum()
	if limit > 0 || machine <= 0 || all <= machine {
		return
	}
	logger.Warn("memory: the limits exceed the memory of the machine",
		"allowances", wholeMiB(all), "machine", wholeMiB(machine),
		"lower", "--cache-size or --store.request-bytes",
		"or_set", "GOMEMLIMIT or a limit of the container, to which the defaults are scaled")
}

// sum returns the sum of what Fit has divided.
func (m *Memory) sum() int64 {
	all := add(add(m.Headers, m.Builds), add(2*m.InFlight+m.Documents, m.Requests.Bytes))
	all = add(all, m.Disk.Memory.Bytes)
	for _, n := range m.CacheBytes {
		all = add(all, n)
	}
	for _, writes := range []*Amount{m.IndexWrites, m.ChunkWrites} {
		if writes != nil {
			all = add(all, writes.Bytes)
		}
	}
	return all
}

// wholeMiB rounds n down to whole MiB for logs and errors, because a part of a limit is rarely
// round.
func wholeMiB(n int64) units.Base2Bytes {
	if n >= 1<<20 {
		n -= n % (1 << 20)
	}
	return units.Base2Bytes(n)
}
