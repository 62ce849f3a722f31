package main

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Heartbeat renews the leases of all running children in one statement.
type Heartbeat struct {
	store *Store
	ttl   time.Duration
	mu    sync.Mutex
	held  map[string]*holding
}

type holding struct {
	job    *Job
	cancel context.CancelFunc
	lost   bool
	until  time.Time
}

// NewHeartbeat returns a keeper for leases of length ttl.
func NewHeartbeat(store *Store, ttl time.Duration) *Heartbeat {
	return &Heartbeat{store: store, ttl: ttl, held: map[string]*holding{}}
}

// Hold starts to renew the lease of job. The returned context ends when the lease is lost; the
// function tells whether that happened.
func (h *Heartbeat) Hold(ctx context.Context, job *Job) (context.Context, func() bool) {
	ctx, cancel := context.WithCancel(ctx)
	entry := &holding{job: job, cancel: cancel, until: time.Now().Add(h.ttl)}
	h.mu.Lock()
	h.held[job.ID] = entry
	h.mu.Unlock()
	return ctx, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return entry.lost
	}
}

// Release stops renewing.
func (h *Heartbeat) Release(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if entry, ok := h.held[id]; ok {
		entry.cancel()
		delete(h.held, id)
	}
}

// Run beats at a third of the lease until ctx ends.
//
// When the database cannot be reached the worker does not trust its own clock for the whole
// lease: children are cancelled once less than a tenth of it is left, because killing a child
// takes up to killDelay and must be over before somebody else may start the job.
func (h *Heartbeat) Run(ctx context.Context) {
	ticker := time.NewTicker(h.ttl / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		renewed, err := h.store.Renew(ctx, h.jobs(), h.ttl)
		h.mu.Lock()
		for id, entry := range h.held {
			switch {
			case err == nil && renewed[id]:
				entry.until = time.Now().Add(h.ttl)
			case err == nil, time.Until(entry.until) < h.ttl/10:
				slog.Warn("lease gone, cancelling child", "job", id)
				entry.lost = true
				entry.cancel()
			}
		}
		h.mu.Unlock()
	}
}

func (h *Heartbeat) jobs() []*Job {
	h.mu.Lock()
	defer h.mu.Unlock()
	jobs := make([]*Job, 0, len(h.held))
	for _, entry := range h.held {
		jobs = append(jobs, entry.job)
	}
	return jobs
}
