package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestEveryRequestIsCountedOnceByStatusAndVersion(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "web.test" {
			t.Errorf("Host is %q", r.Host)
		}
		w.Header().Set("X-Version", "v1")
		if asked.Add(1)%4 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	s, err := parse([]string{"--url", server.URL, "--host", "web.test", "--rate", "200"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	run(ctx, s, &out)

	sum := 0
	var last counts
	for line := range strings.Lines(out.String()) {
		var c counts
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if last = c; !c.Total {
			sum += c.Requests
		}
	}
	all := int(asked.Load())
	if !last.Total || last.Requests != all || sum != all {
		t.Errorf("%d were asked: %s", all, out.String())
	}
	if last.Failed != all/4 || last.Counts["500 v1"] != all/4 || last.Counts["200 v1"] != all-all/4 {
		t.Errorf("a quarter of %d failed: %+v", all, last)
	}
}

func TestOnlyThisMachineIsAsked(t *testing.T) {
	for _, url := range []string{"http://192.0.2.7/", "http://example.com/", "http://8.8.8.8:80/"} {
		if _, err := parse([]string{"--url", url}); err == nil {
			t.Errorf("%s is accepted", url)
		}
	}
}
