package remote

import (
	"container/list"
	"errors"
	"os"
	"sync"
)

// key names a block of a file.
type key struct {
	file  *File
	block int
}

// A cache keeps the blocks that were used last. Blocks that fall out of it
// before they were hashed go to a window on disk, as far as that has room.
type cache struct {
	wait sync.WaitGroup // for what is fetched ahead

	mu     sync.Mutex
	slots  map[key]*slot
	recent *list.List // of *slot that are ready, the last used first
	window window
	most   int
}

type slot struct {
	key
	ready   chan struct{}
	data    []byte
	err     error
	element *list.Element
}

func newCache(s sizes) *cache {
	return &cache{slots: map[key]*slot{}, recent: list.New(), most: s.blocks, window: window{block: s.block}}
}

func (c *cache) has(k key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[k] != nil
}

// get returns a block; of several who want one that is not there, one loads it.
// The block must not be changed.
func (c *cache) get(k key, load func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	s := c.slots[k]
	if s != nil {
		if s.element != nil {
			c.recent.MoveToFront(s.element)
		}
		c.mu.Unlock()
		<-s.ready
		return s.data, s.err
	}
	s = &slot{key: k, ready: make(chan struct{})}
	c.slots[k] = s
	data := c.window.take(k)
	c.mu.Unlock()
	if data == nil {
		data, s.err = load()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(s.ready)
	if s.err != nil {
		delete(c.slots, k)
		return nil, s.err
	}
	s.data = data
	s.element = c.recent.PushFront(s)
	for c.recent.Len() > c.most {
		oldest := c.recent.Remove(c.recent.Back()).(*slot)
		delete(c.slots, oldest.key)
		if oldest.file.wants(oldest.block) {
			c.window.put(oldest.key, oldest.data)
		}
	}
	return s.data, nil
}

// peek returns a block if it is in memory or in the window.
func (c *cache) peek(k key) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.slots[k]; s != nil && s.element != nil {
		return s.data
	}
	return c.window.take(k)
}

func (c *cache) close() error {
	c.wait.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.slots)
	c.recent.Init()
	return c.window.close()
}

// A window holds blocks in a file, in as many places as it may have.
type window struct {
	block  int64 // bytes of one
	file   *os.File
	places map[key]int64
	free   []int64
	used   int64
	most   int64
}

func (w *window) open(folder string, bytes int64) (err error) {
	w.file, err = os.CreateTemp(folder, ".writing-window-*")
	w.places, w.most = map[key]int64{}, bytes/w.block
	return err
}

// put keeps a block if there is room. One that is not kept is fetched again.
func (w *window) put(k key, data []byte) {
	if w.file == nil {
		return
	}
	place := w.used
	if n := len(w.free); n > 0 {
		place, w.free = w.free[n-1], w.free[:n-1]
	} else if w.used >= w.most {
		return
	} else {
		w.used++
	}
	if _, err := w.file.WriteAt(data, place*w.block); err != nil {
		w.free = append(w.free, place)
		return
	}
	w.places[k] = place
}

// take returns a block and gives its place to others.
func (w *window) take(k key) []byte {
	place, ok := w.places[k]
	if !ok {
		return nil
	}
	delete(w.places, k)
	w.free = append(w.free, place)
	data := make([]byte, min(w.block, k.file.Size-int64(k.block)*w.block))
	if _, err := w.file.ReadAt(data, place*w.block); err != nil {
		return nil
	}
	return data
}

func (w *window) close() error {
	if w.file == nil {
		return nil
	}
	name := w.file.Name()
	err := errors.Join(w.file.Close(), os.Remove(name))
	*w = window{block: w.block}
	return err
}
