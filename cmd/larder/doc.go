// Command larder is the binary: `larder store` is the gateway. Flags and wiring only; what a flag
// does is said by the package it configures.
//
// Flags keep Thanos's names, defaults and syntax, so that the arguments of a `thanos store` start
// larder unchanged. A flag that has no meaning here is accepted and said so in the log, once, at
// start; a flag that is not known is refused.
//
// Everything that can be wrong with flags, YAML, files, the data directory or the ports is found
// before the first request can arrive, and is one line on stderr that names the flag.
package main
