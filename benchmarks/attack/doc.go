// Command attack attacks a larder process the way a hostile client, a hostile bucket, a hostile
// page in a browser and a hostile local user would. It is the command behind `make attack`. Each
// attack gets a larder process of its own, with GOMEMLIMIT and, if the user may make one, a cgroup
// of the same size. Attackers dial from addresses such as 127.0.0.66. Meanwhile an honest client at
// 127.0.0.2 sends Series, LabelValues, Info and Health requests. It is the same command in another
// process, so that its figures describe larder and not a busy attacker.
//
//	go run ./benchmarks/attack --seed=7                  every attack
//	go run ./benchmarks/attack --attack=gzip-one,tenants
//	go run ./benchmarks/attack --binary=old/larder       the same against an older build
//
// An attack succeeds if the process ends, its memory reaches the limit, an honest request fails, or
// the goal of the attack is reached: a mark in the bucket, a file written through a link, a secret
// in the output, more metrics than promised. The report contains the time of honest requests for
// every attack. Timed attacks have a limit for it.
//
// # Ownership
//
// All processes listen on loopback and end with the command.
//
// LOCKING: conn.wmu orders the frames of an HTTP/2 connection. conn.mu guards its windows and
// answers and may be taken while wmu is held. honest.mu guards the reports of the honest client,
// target.mu the findings. No other lock is taken while either is held.
package main
