package page

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestRequestsAreCountedByKindInFiveSeconds(t *testing.T) {
	var tr traffic
	now := time.Unix(1_000_000, 0)
	for _, status := range []int{200, 200, 404, 502, 0} {
		tr.add(now, status, 20*time.Millisecond)
	}
	tr.add(now.Add(bucketWidth), 200, time.Second)
	points := tr.since(0, now.Add(bucketWidth))
	if len(points) != 2 {
		t.Fatalf("got %d buckets, want 2: %+v", len(points), points)
	}
	if p := points[0]; p.Total != 5 || p.Refused != 1 || p.Failed != 2 || !p.Start.Equal(now) {
		t.Errorf("got %+v, want 5 requests, 1 refused, 2 failed, from %v on", p, now)
	}
}

func TestQuantilesAreATenthOffAtMost(t *testing.T) {
	for took := 300 * time.Microsecond; took < time.Minute; took = took * 107 / 100 {
		var tr traffic
		now := time.Unix(1_000_000, 0)
		for range 100 {
			tr.add(now, 200, took)
		}
		got, want := tr.since(0, now)[0].P95, float64(took)/1e6
		if math.Abs(got-want) > 0.1*want+0.01 {
			t.Errorf("%v: got %v ms", took, got)
		}
	}
	var tr traffic
	now := time.Unix(1_000_000, 0)
	for i := range 100 {
		took := 10 * time.Millisecond
		if i >= 90 {
			took = time.Second
		}
		tr.add(now, 200, took)
	}
	if p := tr.since(0, now)[0]; p.P50 > 12 || p.P95 < 900 {
		t.Errorf("90 of 100 requests take 10 ms, the others 1 s: got median %v ms, 95 %% %v ms", p.P50, p.P95)
	}
}

func TestExtremeLatenciesAreCounted(t *testing.T) {
	var tr traffic
	now := time.Unix(1_000_000, 0)
	for _, took := range []time.Duration{-1, 0, 1, time.Hour, math.MaxInt64} {
		tr.add(now, 200, took)
	}
	if p := tr.since(0, now)[0]; p.Total != 5 {
		t.Errorf("got %+v, want 5 requests", p)
	}
}

func TestRequestsAreForgottenAfterFifteenMinutes(t *testing.T) {
	var tr traffic
	now := time.Unix(1_000_000, 0)
	tr.add(now, 200, 0)
	if n := len(tr.since(0, now.Add(15*time.Minute-bucketWidth))); n != 1 {
		t.Errorf("before: got %d buckets, want 1", n)
	}
	if n := len(tr.since(0, now.Add(15*time.Minute))); n != 0 {
		t.Errorf("after: got %d buckets, want 0", n)
	}
	tr.add(now.Add(15*time.Minute), 200, 0) // in the same place
	if points := tr.since(0, now.Add(15*time.Minute)); len(points) != 1 || points[0].Total != 1 {
		t.Errorf("got %+v, want only the new request", points)
	}
}

func TestCountingARequestAllocatesNothing(t *testing.T) {
	p := New(Config{})
	defer p.Close()
	if n := testing.AllocsPerRun(1000, func() { p.ObserveRequest(200, 3*time.Millisecond) }); n != 0 {
		t.Errorf("got %v allocations a request, want 0", n)
	}
}

func TestStreamSendsOnlyNewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{})
		defer p.Close()
		var c cursor
		for range 3 {
			p.ObserveRequest(200, 0)
			time.Sleep(bucketWidth)
		}
		if n := len(p.snapshot(&c).Traffic); n != 3 {
			t.Errorf("first: got %d buckets, want 3", n)
		}
		if n := len(p.snapshot(&c).Traffic); n != 0 {
			t.Errorf("at once: got %d buckets, want 0", n)
		}
		p.ObserveRequest(200, 0)
		time.Sleep(trafficEvery)
		if points := p.snapshot(&c).Traffic; len(points) != 1 || points[0].Total != 1 {
			t.Errorf("later: got %+v, want one bucket", points)
		}
	})
}

func BenchmarkObserveRequest(b *testing.B) {
	p := New(Config{})
	defer p.Close()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.ObserveRequest(200, 3*time.Millisecond)
		}
	})
}
