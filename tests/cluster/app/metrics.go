package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// bounds of the histogram's buckets, in seconds.
var bounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// metrics are what most servers count, under the names that most use:
// http_requests_total and http_request_duration_seconds.
type metrics struct {
	mutex    sync.Mutex
	requests map[[2]string]int // by method and status
	buckets  []int             // one for each of bounds, and one for all
	seconds  float64
}

func newMetrics() *metrics {
	return &metrics{requests: map[[2]string]int{}, buckets: make([]int, len(bounds)+1)}
}

func (m *metrics) count(method string, status int, took time.Duration) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.requests[[2]string{method, fmt.Sprint(status)}]++
	m.seconds += took.Seconds()
	for i, bound := range bounds {
		if took.Seconds() <= bound {
			m.buckets[i]++
		}
	}
	m.buckets[len(bounds)]++
}

// serve writes the text format of Prometheus.
func (m *metrics) serve(w http.ResponseWriter, _ *http.Request) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintln(w, "# TYPE http_requests_total counter")
	for key, count := range m.requests {
		fmt.Fprintf(w, "http_requests_total{method=%q,code=%q} %d\n", key[0], key[1], count)
	}
	const name = "http_request_duration_seconds"
	fmt.Fprintf(w, "# TYPE %s histogram\n", name)
	for i, bound := range bounds {
		fmt.Fprintf(w, "%s_bucket{le=\"%g\"} %d\n", name, bound, m.buckets[i])
	}
	all := m.buckets[len(bounds)]
	fmt.Fprintf(w, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %g\n%s_count %d\n", name, all, name, m.seconds, name, all)
}
