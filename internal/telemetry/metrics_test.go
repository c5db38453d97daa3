package telemetry

import (
	"slices"
	"testing"
)

func TestRegistry(t *testing.T) {
	families, err := NewRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, want := range []string{"larder_build_info", "go_goroutines",
		"go_sched_latencies_seconds", "process_open_fds"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing", want)
		}
	}
}
