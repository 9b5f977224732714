//go:build !race

package engine_test

// faultShare is how many faults one stands for: all are met.
const faultShare = 1
