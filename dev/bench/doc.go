// Package bench measures fincodeauth and its peers in the same run. It contains
// only benchmarks, and tests of values that are counted instead of timed. The
// program in the folder report runs the benchmarks and writes
// docs/performance.md. To run them by hand:
//
//	go test -bench Request -cpu 1,2
//	go test -short -bench . -benchtime 1x   # everything, with small sizes
package bench
