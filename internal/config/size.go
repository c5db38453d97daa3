package config

import (
	"fmt"
	"strconv"

	"github.com/alecthomas/units"
)

// ParseSize parses a number of bytes same as Thanos: 1KB and 1KiB are both 1024 bytes. It also
// accepts a number without a unit.
func ParseSize(s string) (int64, error) {
	n, err := units.ParseBase2Bytes(s)
	if plain, perr := strconv.ParseInt(s, 10, 64); perr == nil {
		n, err = units.Base2Bytes(plain), nil
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a size such as 250MB or 2GiB", s)
	}
	if n < 0 {
		return 0, fmt.Errorf("%q is negative", s)
	}
	return int64(n), nil
}

// parsePositive parses a size and rejects 0.
func parsePositive(s string) (int64, error) {
	n, err := ParseSize(s)
	if err == nil && n <= 0 {
		err = fmt.Errorf("%q must be above zero", s)
	}
	return n, err
}

// The bounds of the size of a page.
const (
	minPageSize = 1 << 10
	maxPageSize = 1 << 20
)

// ParsePageSize parses the size of a page, a power of two.
func ParsePageSize(s string) (int64, error) {
	n, err := ParseSize(s)
	if err == nil && (n < minPageSize || n > maxPageSize || n&(n-1) != 0) {
		err = fmt.Errorf("%q is not a power of two from 1KB to 1MB", s)
	}
	return n, err
}

// sizeText returns a size for errors, which ParseSize parses. It has one unit, and is rounded down
// unless it is a small multiple of one.
func sizeText(n int64) string {
	names := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	unit := 0
	for ; unit < len(names)-1 && n != 0 && n%1024 == 0; unit++ {
		n /= 1024
	}
	const most = 10 * 1024
	for ; unit < len(names)-1 && n >= most; unit++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + names[unit]
}
