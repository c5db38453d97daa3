package telemetry

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
)

func TestJournal(t *testing.T) {
	type entry struct {
		Message  string
		Priority journal.Priority
		Fields   map[string]string
	}
	var got []entry
	logger := slog.New(
		&journalHandler{
			level: slog.LevelInfo,
			send: func(m string, p journal.Priority, f map[string]string) error {
				got = append(got, entry{m, p, f})
				return nil
			},
		},
	)
	named := logger.With("name", "shard-0")
	named.Debug("not at this level")
	named.Warn("sync failed", "err", errors.New("no route"), "took", 1500*time.Millisecond)
	logger.WithGroup("http").
		With("listen", ":80").
		Error("", "x-id", "7", slog.Group("req", "Path", "/é"))
	want := []entry{
		{
			"sync failed",
			journal.PriWarning,
			map[string]string{
				"THANOS_NAME": "shard-0",
				"THANOS_ERR":  "no route",
				"THANOS_TOOK": "1.5s",
			},
		},
		{
			"(no message)",
			journal.PriErr,
			map[string]string{
				"THANOS_HTTP_LISTEN":   ":80",
				"THANOS_HTTP_X_ID":     "7",
				"THANOS_HTTP_REQ_PATH": "/é",
			},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
