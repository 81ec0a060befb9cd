package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAFileWinsOverTheEnvironmentAndThatOverTheTag(t *testing.T) {
	t.Setenv("TAG", "errors")
	if found := number("ERROR_SHARE", "0"); found != 0.5 {
		t.Errorf("by the tag: %g", found)
	}
	t.Setenv("ERROR_SHARE", "0.25")
	if found := number("ERROR_SHARE", "0"); found != 0.25 {
		t.Errorf("by the environment: %g", found)
	}
	file := filepath.Join(t.TempDir(), "settings")
	t.Setenv("SETTINGS", file)
	for _, wanted := range []string{"0.75", "1"} {
		if err := os.WriteFile(file, []byte("LATENCY=0s\nERROR_SHARE = "+wanted+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if found := setting("ERROR_SHARE", "0"); found != wanted {
			t.Errorf("by the file: %s", found)
		}
	}
	if found := setting("PORT", "8080"); found != "8080" {
		t.Errorf("by default: %s", found)
	}
}

func TestARequestWinsOverAllForItsTime(t *testing.T) {
	t.Setenv("LATENCY", "1s")
	if err := ask(url.Values{"LATENCY": {"2s"}}); err != nil || duration("LATENCY", "0s") != 2*time.Second {
		t.Errorf("by a request: %v, %v", duration("LATENCY", "0s"), err)
	}
	if err := ask(url.Values{"LATENCY": {"3s"}, "for": {"-1s"}}); err != nil || duration("LATENCY", "0s") != time.Second {
		t.Errorf("its time is over: %v, %v", duration("LATENCY", "0s"), err)
	}
	if err := ask(url.Values{"for": {"long"}}); err == nil {
		t.Error("no time")
	}
}

func TestProcessorTimeIsOwedByTheShareAndNeverMoreThanASecond(t *testing.T) {
	for _, c := range []struct {
		before, passed time.Duration
		share          float64
		owing          time.Duration
	}{
		{0, 100 * time.Millisecond, 0.2, 20 * time.Millisecond},
		// It took a little more the last time, or was not given all.
		{-5 * time.Millisecond, 100 * time.Millisecond, 0.2, 15 * time.Millisecond},
		{30 * time.Millisecond, 100 * time.Millisecond, 0.2, 50 * time.Millisecond},
		{900 * time.Millisecond, time.Minute, 0.5, time.Second},
		// Told to stop, it owes nothing.
		{900 * time.Millisecond, time.Second, 0, 0},
	} {
		if found := owing(c.before, c.passed, c.share); found != c.owing {
			t.Errorf("%v after %v at %g: %v, not %v", c.before, c.passed, c.share, found, c.owing)
		}
	}
}

func TestMetricsAreThoseThatPrometheusReads(t *testing.T) {
	m := newMetrics()
	m.count(http.MethodGet, 200, 30*time.Millisecond)
	m.count(http.MethodGet, 200, 3*time.Second)
	m.count(http.MethodGet, 500, time.Millisecond)
	w := httptest.NewRecorder()
	m.serve(w, nil)
	for _, line := range []string{
		`http_requests_total{method="GET",code="200"} 2`,
		`http_requests_total{method="GET",code="500"} 1`,
		`http_request_duration_seconds_bucket{le="0.005"} 1`,
		`http_request_duration_seconds_bucket{le="0.05"} 2`,
		`http_request_duration_seconds_bucket{le="+Inf"} 3`,
		`http_request_duration_seconds_count 3`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, w.Body)
		}
	}
}
