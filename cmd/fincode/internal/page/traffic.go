package page

import (
	"math"
	"sync"
	"time"
)

const (
	bucketWidth = 5 * time.Second
	bucketCount = 180 // 15 minutes

	// Latencies are counted in steps that grow by a fifth, from a quarter of a
	// millisecond to 110 seconds. So a quantile is at most about 10 % off.
	firstStep    = 250 * time.Microsecond
	stepsPerTwo  = 4 // steps until a latency has doubled
	latencySteps = 76
)

// A traffic counts requests in buckets of five seconds, for 15 minutes.
type traffic struct {
	mu sync.Mutex
	// ring has the bucket number n at n % bucketCount. What is there may be older
	// than n: bucket.number says so.
	ring [bucketCount]bucket
}

// A bucket has the requests of five seconds.
type bucket struct {
	number  int64 // five-second periods since 1970
	total   uint32
	refused uint32 // status 4xx
	failed  uint32 // status 5xx, or no answer
	steps   [latencySteps]uint32
}

// bucketNumber returns the number of the bucket that t is in.
func bucketNumber(t time.Time) int64 { return t.UnixNano() / int64(bucketWidth) }

// add counts a request that has ended. status is 0 if there was no answer.
func (t *traffic) add(now time.Time, status int, took time.Duration) {
	n, step := bucketNumber(now), latencyStep(took)
	t.mu.Lock()
	defer t.mu.Unlock()
	b := &t.ring[n%bucketCount]
	if b.number != n {
		*b = bucket{number: n}
	}
	b.total++
	b.steps[step]++
	switch {
	case status == 0 || status >= 500:
		b.failed++
	case status >= 400:
		b.refused++
	}
}

// since returns the buckets with requests from number first on, the oldest first.
func (t *traffic) since(first int64, now time.Time) []TrafficPoint {
	last := bucketNumber(now)
	points := []TrafficPoint{}
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := max(first, last-bucketCount+1); n <= last; n++ {
		if b := &t.ring[n%bucketCount]; b.number == n {
			points = append(points, b.point())
		}
	}
	return points
}

// A TrafficPoint says what the requests of five seconds were like.
type TrafficPoint struct {
	Start   time.Time `json:"start"`
	Total   uint32    `json:"total"`
	Refused uint32    `json:"refused"` // status 4xx
	Failed  uint32    `json:"failed"`  // status 5xx, or no answer
	P50     float64   `json:"p50_ms"`  // half of the requests were faster
	P95     float64   `json:"p95_ms"`  // 95 % were faster
}

func (b *bucket) point() TrafficPoint {
	return TrafficPoint{
		Start:   time.Unix(0, b.number*int64(bucketWidth)).UTC(),
		Total:   b.total,
		Refused: b.refused,
		Failed:  b.failed,
		P50:     b.quantile(0.50),
		P95:     b.quantile(0.95),
	}
}

// quantile returns the latency in milliseconds that a part of the requests did not
// exceed: the middle of its step.
func (b *bucket) quantile(part float64) float64 {
	rank := uint32(math.Ceil(part * float64(b.total)))
	var seen uint32
	for step, count := range b.steps {
		if seen += count; seen >= rank {
			return stepMiddle(step)
		}
	}
	return stepMiddle(latencySteps - 1)
}

// latencyStep returns the step that a latency is counted in.
func latencyStep(took time.Duration) int {
	if took < firstStep {
		return 0
	}
	step := 1 + int(math.Log2(float64(took)/float64(firstStep))*stepsPerTwo)
	return min(step, latencySteps-1)
}

// stepMiddle returns the latency in the middle of a step, in milliseconds.
func stepMiddle(step int) float64 {
	ms := float64(firstStep) / float64(time.Millisecond) * math.Exp2((float64(step)-0.5)/stepsPerTwo)
	return math.Round(ms*100) / 100
}
