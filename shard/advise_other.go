//go:build !linux && !js

package shard

// advise is for systems that choose a mapping's pages themselves.
func advise([]byte) {}
