//go:build race

package engine_test

// faultShare is how many faults one stands for. The run without the race detector
// meets them all, but for what operations leave out; with it each takes several times
// as long, and a data race shows at one fault of an operation as well as at another.
const faultShare = 16
