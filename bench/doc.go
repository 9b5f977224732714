// Package bench compares Mandate with the libraries below it. It is a module of
// its own so that what it compares with stays out of services. README.md says
// how to run it and holds the last results.
package bench
