package admission

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestTenantNamesAreClipped: TenantName returns short and valid UTF-8, and is idempotent.
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
