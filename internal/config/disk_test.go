package config

import (
	"strings"
	"testing"
)

// withDisk returns a Memory whose disk has the given sizes; index 0 is the default.
func withDisk(total, index int64) *Memory {
	m := &Memory{}
	m.Disk.Total = Amount{total, true, "--disk-cache-size"}
	m.Disk.Index = Amount{index, index > 0, "--disk-cache.index-size"}
	m.Page[IndexPages].Bytes, m.Page[ChunkPages].Bytes = 8<<10, 8<<10
	return m
}

// TestDiskIsDivided: the kinds get their parts, and the memory is a claim.
func TestDiskIsDivided(t *testing.T) {
	m := withDisk(100*gib, 0)
	if _, err := m.Fit(4 * gib); err != nil {
		t.Fatal(err)
	}
	d := &m.Disk
	if index, chunks := d.Bytes[IndexPages]/gib, d.Bytes[ChunkPages]/gib; index != 39 &&
		index != 40 || index+chunks < 99 {
		t.Errorf("index pages have %d GiB, chunk pages %d", index, chunks)
	}
	if n := d.Memory.Bytes / mib; n < 140 || n > 160 {
		t.Errorf("100 GiB need %d MiB of memory", n)
	}
	if d.Prefetch.Bytes != d.Bytes[IndexPages]/4*3 || d.PrefetchRead != 8*mib {
		t.Errorf("%d bytes are prefetched, %d a read", d.Prefetch.Bytes, d.PrefetchRead)
	}
	m = withDisk(100*gib, 0)
	m.Disk.Prefetch = Amount{0, true, "--disk-cache.prefetch-bytes"}
	if _, err := m.Fit(4 * gib); err != nil || m.Disk.Memory.Bytes != d.Memory.Bytes-8*mib {
		t.Errorf("%d bytes of memory without prefetch, %d with it; %v",
			m.Disk.Memory.Bytes, d.Memory.Bytes, err)
	}
	without := &Memory{}
	if _, err := without.Fit(gib / 2); err != nil {
		t.Fatal(err)
	}
	m = withDisk(100*gib, 60*gib)
	if _, err := m.Fit(gib / 2); err != nil {
		t.Fatal(err)
	}
	if m.Disk.Bytes[IndexPages] != 60*gib || m.Disk.Bytes[ChunkPages] != 40*gib {
		t.Errorf("got %v", m.Disk.Bytes)
	}
	if m.Requests.Bytes >= without.Requests.Bytes {
		t.Errorf("requests have %d bytes with the disk, and %d without", m.Requests.Bytes,
			without.Requests.Bytes)
	}
}

func TestDiskErrors(t *testing.T) {
	f := func(m *Memory, limit int64, want string) {
		t.Helper()
		if _, err := m.Fit(limit); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	f(withDisk(20<<20, 0), 0, "--disk-cache-size 20MiB, of which --disk-cache.index-size 8MiB are "+
		"for index pages and the rest for chunk pages: each needs at least 16MiB")
	f(withDisk(100<<20, 90<<20), 0, "each needs at least 16MiB")
	f(withDisk(4096*gib, 0), 0, "more than the limit of 1TiB")
	m := withDisk(100*gib, 20*gib)
	m.Disk.Prefetch = Amount{30 * gib, true, "--disk-cache.prefetch-bytes"}
	f(m, 0, "--disk-cache.prefetch-bytes 30GiB is more than 20GiB, the part of the disk cache for")
	f(withDisk(500*gib, 0), gib/2, "the memory of --disk-cache-size")
}
