// Command attack attacks a larder process as a hostile client, a hostile bucket, a hostile page in
// a browser and a hostile local user would: the command behind `make attack`.
//
// Each attack gets a larder process of its own, with GOMEMLIMIT and, where the user may make one, a
// cgroup of the same size. Attackers dial from addresses such as 127.0.0.66. Meanwhile an honest
// client at 127.0.0.2 asks Series, LabelValues, Info and Health all the time. It is the same
// command in a process of its own, so that its figures tell of larder and not of a busy attacker.
//
//	go run ./benchmarks/attack --seed=7                  every attack
//	go run ./benchmarks/attack --attack=gzip-one,tenants
//	go run ./benchmarks/attack --binary=old/larder       what an older build does
//
// An attack gets through when the process ends, when its memory reaches the limit, when an honest
// request fails, or when what the attack itself looks for happened: a mark in the bucket, a file
// behind a link, a secret in a text, more metrics than promised. The time of honest requests is
// reported for every attack, and bounded for those that promise it.
//
// # What it holds
//
// Everything it starts is on loopback and ends with it. LOCKING: conn.wmu orders the frames of an
// HTTP/2 connection, conn.mu guards its windows and answers and may be taken while wmu is held.
// honest.mu guards the reports of the honest client, target.mu the findings. No other lock is taken
// while either is held.
package main
