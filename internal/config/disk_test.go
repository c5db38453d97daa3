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
	const parts = ": index pages and chunk pages need from 16MiB to 1TiB each"
	f(withDisk(1<<20, 0), 0, "--disk-cache-size 1MiB is too small: set at least 40MiB"+parts)
	f(withDisk(40<<20-1, 0), 0, "--disk-cache-size 39MiB is too small: set at least 40MiB"+parts)
	f(withDisk(4096*gib, 0), 0, "--disk-cache-size 4TiB is too large: set at most 1706GiB"+parts)
	f(withDisk(31<<20, 16<<20), 0, "--disk-cache-size 31MiB is too small: set at least 32MiB"+parts)
	f(withDisk(3072*gib, gib), 0, "--disk-cache-size 3TiB is too large: set at most 2TiB"+parts)
	f(withDisk(100<<20, 90<<20), 0,
		"--disk-cache.index-size 90MiB of --disk-cache-size 100MiB: set from 16MiB to 84MiB"+parts)
	f(withDisk(100<<20, 1<<20), 0, "set from 16MiB to 84MiB")
	f(withDisk(1800*gib+5, gib), 0, "--disk-cache.index-size 1GiB of --disk-cache-size 1800GiB: "+
		"set from 777GiB to 1TiB")
	// What the messages say can be set.
	for _, m := range []*Memory{
		withDisk(40<<20, 0), withDisk(1706*gib, 0), withDisk(32<<20, 16<<20),
		withDisk(2048*gib, 1024*gib), withDisk(100<<20, 84<<20), withDisk(1800*gib+5, 777*gib),
	} {
		if _, err := m.Fit(0); err != nil {
			t.Error(err)
		}
	}
	m := withDisk(100*gib, 20*gib)
	m.Disk.Prefetch = Amount{30 * gib, true, "--disk-cache.prefetch-bytes"}
	f(m, 0, "--disk-cache.prefetch-bytes 30GiB is more than the disk cache has for index pages: "+
		"set at most 20GiB")
	m = withDisk(gib, 0)
	m.Disk.Prefetch = Amount{gib, true, "--disk-cache.prefetch-bytes"}
	f(m, 0, "set at most 409MiB")
	f(withDisk(500*gib, 0), gib/2, "the memory of --disk-cache-size")
}
