package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// progressLines prints progress, at most one line a second. Its calls must not overlap.
type progressLines struct {
	w      io.Writer // nil for none
	forced bool      // print the end of short stages too

	stage     string
	began, at time.Time // of the stage, and of its last line
	printed   bool      // the stage has a line
}

// newProgressLines prints to stderr if that is a terminal or progress is forced.
func newProgressLines(stderr io.Writer, forced bool) *progressLines {
	p := &progressLines{w: stderr, forced: forced}
	if f, ok := stderr.(*os.File); !forced && ok {
		info, err := f.Stat()
		if err != nil || info.Mode()&fs.ModeCharDevice == 0 {
			p.w = nil
		}
	} else if !forced {
		p.w = nil
	}
	return p
}

// report notes that done of total parts of a stage are done. total is 0 while it is unknown.
func (p *progressLines) report(stage string, done, total int) {
	if p.w == nil {
		return
	}
	now := time.Now()
	if stage != p.stage {
		p.stage, p.began, p.at, p.printed = stage, now, now, false
	}
	ended := total > 0 && done == total && (p.forced || p.printed)
	if now.Sub(p.at) < time.Second && !ended {
		return
	}
	p.at, p.printed = now, true
	line := fmt.Sprintf("%s: %d", stage, done)
	if total > 0 {
		line += fmt.Sprintf(" of %d", total)
		if rest := total - done; done > 0 && rest > 0 {
			left := now.Sub(p.began) / time.Duration(done) * time.Duration(rest)
			line += fmt.Sprintf(", %s left", left.Round(time.Second))
		}
	}
	// A failure to print progress must not end a report.
	_, _ = fmt.Fprintln(p.w, line)
}
