// Command load sends requests at a constant rate and counts the answers.
//
//	load --url URL [--host HOST] [--header NAME=VALUE ...] [--rate N] [--for TIME] [--grpc]
//
// Requests are sent when their time has come, whether or not earlier ones were
// answered, so a slow server does not slow the count down. It ends after
// --for, or when its standard input is closed, and then waits for the answers
// that are due.
//
// It prints a line of JSON for each second in which requests were sent, once
// all of them are answered, and one for the whole at the end ("total": true):
//
//	{"second":3,"requests":100,"failed":0,"counts":{"200 v1":90,"200 v2":10},"p50":0.0012,"p99":0.0052}
//
// The keys of counts are the status (of gRPC: "grpc 0"; without an answer:
// "error" and why) and the header X-Version of the answer. Failed is what has
// no answer, a status of 500 and more, or a gRPC status other than 0. Times are
// in seconds.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// timeLimit is how long an answer is waited for.
const timeLimit = 60 * time.Second

// most is the longest that load sends requests, so that one that was forgotten
// ends.
const most = 30 * time.Minute

// maxRate keeps a mistake from taking the whole machine.
const maxRate = 2000

type settings struct {
	url, host string
	headers   http.Header
	rate      float64
	period    time.Duration
	grpc      bool
}

func main() {
	s, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.period)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	run(ctx, s, os.Stdout)
}

func parse(args []string) (settings, error) {
	s := settings{headers: http.Header{}}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.StringVar(&s.url, "url", "", "where requests go")
	flags.StringVar(&s.host, "host", "", "the Host header, when it is not that of the URL")
	flags.Float64Var(&s.rate, "rate", 100, "requests a second")
	flags.DurationVar(&s.period, "for", most, "how long")
	flags.BoolVar(&s.grpc, "grpc", false, "send gRPC calls with an empty message, over HTTP/2 without TLS")
	flags.Func("header", "a header, NAME=VALUE (repeatable)", func(text string) error {
		name, value, found := strings.Cut(text, "=")
		if !found {
			return errors.New("it is not NAME=VALUE")
		}
		s.headers.Add(name, value)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	to, err := url.Parse(s.url)
	if err != nil {
		return s, err
	}
	// Nothing leaves the machine and its own networks.
	if ip := net.ParseIP(to.Hostname()); ip == nil || !ip.IsLoopback() && !ip.IsPrivate() {
		return s, fmt.Errorf("--url=%s: only addresses of this machine are asked", s.url)
	}
	if s.rate <= 0 || s.rate > maxRate {
		return s, fmt.Errorf("--rate=%g is not between 0 and %d", s.rate, maxRate)
	}
	s.period = min(s.period, most)
	return s, nil
}

// answer is what became of one request.
type answer struct {
	second int
	what   string
	failed bool
	took   time.Duration
}

// run sends requests until the context ends and writes the counts.
func run(ctx context.Context, s settings, out io.Writer) {
	client := clientFor(s)
	answers := make(chan answer, 1024)
	sent := make(chan int, 1) // of each second, when it is over
	go func() {
		defer close(sent)
		began := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		second, count := 0, 0
		for i := 0; ; i++ {
			due := time.Duration(float64(i) / s.rate * float64(time.Second))
			timer.Reset(time.Until(began.Add(due)))
			select {
			case <-ctx.Done():
				sent <- count
				return
			case <-timer.C:
			}
			for ; second < int(due/time.Second); second++ {
				sent <- count
				count = 0
			}
			count++
			go func(second int) { answers <- ask(client, s, second) }(second)
		}
	}()
	collect(sent, answers, out)
}

// collect prints each second when all its answers are there.
func collect(sent <-chan int, answers <-chan answer, out io.Writer) {
	encoder := json.NewEncoder(out)
	var seconds []*counts
	at := func(second int) *counts {
		for len(seconds) <= second {
			seconds = append(seconds, newCounts())
		}
		return seconds[second]
	}
	total := newCounts()
	printed, known := 0, 0
	var expected []int
	for sent != nil || printed < known {
		select {
		case count, open := <-sent:
			if !open {
				sent = nil
				break
			}
			expected = append(expected, count)
			known++
		case a := <-answers:
			at(a.second).add(a)
			total.add(a)
		}
		for printed < known && at(printed).Requests == expected[printed] {
			c := at(printed)
			c.Second = &printed
			_ = encoder.Encode(c.finish())
			seconds[printed] = newCounts()
			printed++
		}
	}
	total.Total = true
	_ = encoder.Encode(total.finish())
}

// counts is a line of the output.
type counts struct {
	Second   *int           `json:"second,omitempty"`
	Total    bool           `json:"total,omitempty"`
	Requests int            `json:"requests"`
	Failed   int            `json:"failed"`
	Counts   map[string]int `json:"counts"`
	P50      float64        `json:"p50"`
	P99      float64        `json:"p99"`

	took []time.Duration
}

func newCounts() *counts { return &counts{Counts: map[string]int{}} }

func (c *counts) add(a answer) {
	c.Requests++
	c.Counts[a.what]++
	if a.failed {
		c.Failed++
	}
	c.took = append(c.took, a.took)
}

func (c *counts) finish() *counts {
	if len(c.took) > 0 {
		slices.Sort(c.took)
		c.P50 = c.took[len(c.took)/2].Seconds()
		c.P99 = c.took[len(c.took)*99/100].Seconds()
	}
	return c
}

func clientFor(s settings) *http.Client {
	protocols := new(http.Protocols)
	if s.grpc {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	return &http.Client{
		Timeout: timeLimit,
		Transport: &http.Transport{
			Protocols:           protocols,
			MaxIdleConnsPerHost: 256,
		},
		// A redirect is an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends one request.
func ask(client *http.Client, s settings, second int) answer {
	began := time.Now()
	a := answer{second: second, failed: true}
	response, err := send(client, s)
	if err != nil {
		a.what = "error " + reason(err)
		a.took = time.Since(began)
		return a
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		a.what = "error " + reason(err)
	} else if s.grpc {
		status := response.Trailer.Get("Grpc-Status")
		if status == "" {
			status = response.Header.Get("Grpc-Status") // an answer that is trailers alone
		}
		a.what, a.failed = "grpc "+status, status != "0"
	} else {
		a.what, a.failed = fmt.Sprint(response.StatusCode), response.StatusCode >= 500
	}
	if version := response.Header.Get("X-Version"); version != "" {
		a.what += " " + version
	}
	a.took = time.Since(began)
	return a
}

func send(client *http.Client, s settings) (*http.Response, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if s.grpc {
		method, body = http.MethodPost, bytes.NewReader(make([]byte, 5)) // not compressed, of length 0
	}
	request, err := http.NewRequest(method, s.url, body)
	if err != nil {
		return nil, err
	}
	request.Header = s.headers.Clone()
	request.Host = s.host
	if s.grpc {
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("Te", "trailers")
	}
	return client.Do(request)
}

// reason is the innermost cause, which has no addresses and ports in it, so
// that equal causes are counted together.
func reason(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}
