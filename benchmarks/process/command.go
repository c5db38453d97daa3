package process

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// Main runs the command of a benchmark until SIGINT or SIGTERM. If run returns an error, Main
// prints it after the name of the command and exits with 1.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// Names returns the names of the elements, separated by commas.
func Names[T fmt.Stringer](all []T) string {
	var names []string
	for _, v := range all {
		names = append(names, v.String())
	}
	return strings.Join(names, ", ")
}

// Choose returns the elements of all with the given names, in the order of names. No name selects
// all. kind stands for the elements in the error about an unknown name.
func Choose[T fmt.Stringer](kind string, all []T, names []string) ([]T, error) {
	if len(names) == 0 {
		return all, nil
	}
	var out []T
	for _, name := range names {
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(all, func(v T) bool { return v.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown %s %q; known are %s", kind, name, Names(all))
		}
		out = append(out, all[i])
	}
	return out, nil
}
