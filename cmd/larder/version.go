package main

import (
	"runtime/debug"

	"github.com/prometheus/common/version"
)

// stampVersion gives --version, the log, the pages and the build info metric the version that the
// go command recorded, unless the linker set one: a tag, or the time and revision of the commit.
// The revision needs nothing, because package version reads it from the same build info.
func stampVersion() {
	info, ok := debug.ReadBuildInfo()
	if ok {
		version.Version = chooseVersion(version.Version, info)
	}
}

// chooseVersion returns the version of a binary: linked, or else what its build info says. Builds
// without version control are "(devel)" there.
func chooseVersion(linked string, info *debug.BuildInfo) string {
	switch {
	case linked != "":
		return linked
	case info.Main.Version == "" || info.Main.Version == "(devel)":
		return "dev"
	default:
		return info.Main.Version
	}
}
