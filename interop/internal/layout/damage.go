package layout

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
)

// litter adds to the bucket what real buckets contain besides complete blocks: an unfinished
// upload, a meta.json that is not JSON, and files that belong to no block.
func litter(r *rand.Rand, dir string) error {
	id := func() string {
		var e [10]byte
		for i := range e {
			e[i] = byte(r.Uint32())
		}
		var u ulid.ULID
		if err := u.SetTime(1_680_000_000_000); err != nil {
			panic(err)
		}
		if err := u.SetEntropy(e[:]); err != nil {
			panic(err)
		}
		return u.String()
	}
	files := map[string]string{"debug/metas/readme.txt": "not a block"}
	if r.IntN(2) == 0 {
		files[id()+"/chunks/000001"] = "half an upload"
	}
	if r.IntN(2) == 0 {
		files[id()+"/meta.json"] = `{"version": 1, "ulid": `
	}
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// damage breaks the block in dir.
func damage(dir string, d Damage) error {
	chunk := filepath.Join(dir, "chunks", "000001")
	switch d {
	case MissingChunks:
		// The last file: if a block's meta does not name its files, Thanos uses the files that it
		// finds. If an earlier one is missing, it would read another file in its place.
		files, err := os.ReadDir(filepath.Join(dir, "chunks"))
		if err != nil {
			return err
		}
		return os.Remove(filepath.Join(dir, "chunks", files[len(files)-1].Name()))
	case TruncatedChunks:
		return os.Truncate(chunk, 9)
	case FlippedChunk:
		b, err := os.ReadFile(chunk)
		if err != nil {
			return err
		}
		flipRecords(b)
		return os.WriteFile(chunk, b, 0o644)
	default:
		return fmt.Errorf("unknown damage %q", d)
	}
}

// flipRecords changes the last data byte of every chunk of a chunk file. It does not touch the
// header of 8 bytes.
func flipRecords(b []byte) {
	for at := 8; at < len(b); {
		n, w := binary.Uvarint(b[at:])
		end := at + w + 1 + int(n) // Length, encoding, data; a checksum of 4 bytes follows.
		if w <= 0 || end+4 > len(b) {
			return
		}
		b[end-1] ^= 0x55
		at = end + 4
	}
}
