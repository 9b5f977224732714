//go:build !race

package engine_test

// faultShare is how many faults one stands for: all are met, but for what operations
// leave out.
const faultShare = 1
