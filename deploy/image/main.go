package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// plain are versions and revisions that need no quotes in linker flags and image names.
var plain = regexp.MustCompile(`^[A-Za-z0-9._+-]+$`)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var o options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", "../..", "Folder of larder's go.mod.")
	flags.StringVar(&o.out, "out", "",
		"Folder to write the OCI layout to. A layout that is there is replaced.")
	flags.StringVar(&o.version, "version", "dev", "Version in labels and in --version.")
	flags.StringVar(&o.revision, "revision", "unknown", "Commit in labels and in --version.")
	created := flags.Int64("created", 0, "Creation time, seconds since 1970: the commit's.")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64", "Platforms, by commas.")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.out == "" {
		return errors.New("--out is missing: name a folder to write the OCI layout to")
	}
	for name, value := range map[string]string{"version": o.version, "revision": o.revision} {
		if !plain.MatchString(value) {
			return fmt.Errorf("--%s: %q: letters, digits and . _ + - only", name, value)
		}
	}
	o.created = time.Unix(*created, 0).UTC()
	for p := range strings.SplitSeq(*platforms, ",") {
		parsed, err := parsePlatform(p)
		if err != nil {
			return err
		}
		o.platforms = append(o.platforms, parsed)
	}
	digest, err := write(o)
	if err != nil {
		return err
	}
	fmt.Printf("%s: version %s, %s, digest %s\n", o.out, strconv.Quote(o.version), *platforms,
		digest)
	return nil
}
