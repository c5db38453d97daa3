// Package tune searches for the settings of a gateway that keep the latency budgets at the lowest
// cost. It is the search of `larder bench --tune`, and measures through a function of the caller.
//
// # What is better
//
// A setting is better if it overruns budgets less. If both overrun them as much, the one that costs
// fewer US dollars is better. If both cost the same, the one that answers sooner is. A scenario
// without a budget may take as long as with the settings of the start, and Options.Slack more.
//
// # How it is found out
//
// Settings are compared in pairs. A round is a seed, which draws requests and the times of the
// modelled bucket. In each round all settings that are compared run one after the other, each round
// in another order. Only quotients within a round count, because the speed of a machine drifts. A
// difference counts if the 95 % confidence interval of Student's t distribution excludes zero, and
// the difference is at least Options.MinGain.
//
//  1. Screening measures the lowest and the highest value of each knob, and orders the knobs by
//     their effect. A knob without an effect is not varied further.
//  2. Descent goes through the knobs. It compares the current value with its neighbours, and with
//     the ends that screening found promising. After two rounds the worse half leaves. The last one
//     is measured until it is better for certain or cannot be. If it is, it is the current value
//     from now on, and its neighbours follow. A second pass begins after a pass that changed
//     something.
//  3. The result is compared with the start once more, in rounds that the search has not seen,
//     because the best of many measurements is partly luck. Without a significant difference, the
//     settings of the start are the result.
//
// Between descent and this comparison, the constants that have no flag are measured, as far as the
// time suffices. The search never changes them: see Knob.Constant.
//
// The search has a time limit. It uses a real clock, because CPU time is a part of the cost, and
// no process outside of a test can run in virtual time.
//
// The package owns no bytes, and has no locks or goroutines.
package tune
