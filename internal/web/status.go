package web

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/common/version"
)

type buildInfoJSON struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	Branch    string `json:"branch"`
	BuildUser string `json:"buildUser"`
	BuildDate string `json:"buildDate"`
	GoVersion string `json:"goVersion"`
}

func buildInfo() buildInfoJSON {
	return buildInfoJSON{
		version.Version,
		version.GetRevision(),
		version.Branch,
		version.BuildUser,
		version.BuildDate,
		version.GoVersion,
	}
}

type runtimeInfoJSON struct {
	StartTime      time.Time `json:"startTime"`
	CWD            string    `json:"CWD"`
	GoroutineCount int       `json:"goroutineCount"`
	GOMAXPROCS     int       `json:"GOMAXPROCS"`
	GOGC           string    `json:"GOGC"`
	GODEBUG        string    `json:"GODEBUG"`
	GOMEMLIMIT     int64     `json:"GOMEMLIMIT"`
}

func newRuntimeInfo(started time.Time) func() runtimeInfoJSON {
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // the folder was removed
	}
	return func() runtimeInfoJSON {
		return runtimeInfoJSON{
			StartTime:      started.UTC(),
			CWD:            dir,
			GoroutineCount: runtime.NumGoroutine(),
			GOMAXPROCS:     runtime.GOMAXPROCS(0),
			GOGC:           os.Getenv("GOGC"),
			GODEBUG:        os.Getenv("GODEBUG"),
			GOMEMLIMIT:     debug.SetMemoryLimit(-1),
		}
	}
}
