package admission

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestTenantNamesAreClipped: what is kept of a name is valid, short, and no part of a long string.
func TestTenantNamesAreClipped(t *testing.T) {
	for _, name := range []string{
		"a", strings.Repeat("é", 1000), strings.Repeat("\xff", 1000), strings.Repeat("\xffa", 100),
		strings.Repeat("x", 127) + "é",
	} {
		got := TenantName(name)
		if len(got) > MaxTenantBytes || got == "" || !utf8.ValidString(got) {
			t.Errorf("%.20q...: %d bytes, %q", name, len(got), got)
		}
		if again := TenantName(got); again != got {
			t.Errorf("%q becomes %q", got, again)
		}
	}
}
