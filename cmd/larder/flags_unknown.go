package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"larder/internal/redaction"
	"larder/internal/yamldoc"
)

// formerFlag is a flag that Thanos has removed from `thanos store`.
type formerFlag struct {
	// name may end in a dot. Then it is a prefix of flags.
	name string
	// gone is the first release of Thanos without the flag.
	gone string
	// instead says what to do instead.
	instead string
}

// formerFlags lists flags that Thanos has removed. Flags that are accepted without effect are in
// ignored.
func formerFlags() []formerFlag {
	const (
		gossip  = "gossip was removed: remove it, and add this process to the Querier's --endpoint"
		bucket  = "use --objstore.config-file"
		headers = "remove it: index headers are always used"
	)
	return []formerFlag{
		{"cluster.", "0.5.0", gossip},
		{"grpc-advertise-address", "0.5.0", gossip},
		{"gcs.", "0.2.0", bucket},
		{"s3.", "0.2.0", bucket},
		{"gcloudtrace.", "0.6.0", "use --tracing.config-file"},
		{"experimental.enable-index-header", "0.12.0", headers},
		{"store.disable-index-header", "0.14.0", headers},
		{
			"experimental.enable-index-cache-postings-compression",
			"0.17.0",
			"remove it: postings are always compressed",
		},
		{"log.request.decision", "0.33.0", "use --request.logging-config-file"},
	}
}

var (
	unknownLong    = regexp.MustCompile(`(?s)^unknown long flag '--(.*)'$`)
	unknownShort   = regexp.MustCompile(`(?s)^unknown short flag '-(.*)'$`)
	unknownCommand = regexp.MustCompile(`(?s)^expected command but got "(.*)"$`)
	unexpected     = regexp.MustCompile(`(?s)^unexpected (?:argument )?'?(.*?)'?$`)

	// flagName matches the name at the beginning of an argument. A value may follow it.
	flagName = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}`)
)

// explainArguments adds the probable intention to an error of kingpin. It repeats only names of
// flags and plain words, because an argument may be a document with secrets.
func explainArguments(app *kingpin.Application, args []string, err error) error {
	model := app.Model()
	if m := unknownLong.FindStringSubmatch(err.Error()); m != nil {
		return unknownFlag(flagName.FindString(m[1]), flagNames(model))
	}
	if m := unexpected.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("unexpected argument %s: values follow flags, as in --data-dir=./data",
			redaction.Value(m[1]))
	}
	if m := unknownShort.FindStringSubmatch(err.Error()); m != nil {
		// kingpin reads a long name after one dash as several short flags.
		given := slices.IndexFunc(
			args, func(a string) bool { return strings.HasPrefix(a, "-"+m[1]) && len(a) > 2 },
		)
		if given < 0 {
			return err
		}
		name := flagName.FindString(args[given][1:])
		return fmt.Errorf(
			"unknown flag -%s: flags begin with two dashes, did you mean --%s?", name, name,
		)
	}
	if m := unknownCommand.FindStringSubmatch(err.Error()); m != nil {
		var names []string
		for _, c := range model.Commands {
			names = append(names, c.Name)
		}
		return fmt.Errorf("unknown command %q, want one of %s",
			redaction.Value(m[1]), strings.Join(names, ", "))
	}
	for _, a := range args {
		if _, v, ok := strings.Cut(a, "="); ok && !redaction.Plain(v) && !redaction.Path(v) {
			err = redaction.Hide(err, v)
		}
	}
	return err
}

// unknownFlag returns an error that says since when Thanos lacks the flag, or which flag was
// probably meant.
func unknownFlag(given string, known []string) error {
	name := strings.TrimPrefix(given, "no-")
	for _, f := range formerFlags() {
		if name == f.name || strings.HasSuffix(f.name, ".") && strings.HasPrefix(name, f.name) {
			return fmt.Errorf(
				"unknown flag --%s: Thanos removed it in version %s: %s", given, f.gone, f.instead,
			)
		}
	}
	if slices.Contains(known, name) { // no- before a flag that is not a switch
		return fmt.Errorf("unknown flag --%s: --%s has a value and cannot be negated", given, name)
	}
	if meant := yamldoc.Nearest(given, known); meant != "" {
		return fmt.Errorf("unknown flag --%s, did you mean --%s?", given, meant)
	}
	return fmt.Errorf("unknown flag --%s: see larder store --help", given)
}

// flagNames returns the names of the flags of an application and its commands.
func flagNames(model *kingpin.ApplicationModel) []string {
	var names []string
	add := func(flags []*kingpin.FlagModel) {
		for _, f := range flags {
			names = append(names, f.Name)
		}
	}
	add(model.Flags)
	for _, c := range model.Commands {
		add(c.Flags)
	}
	return names
}
