// Package admission decides when requests may run and how many bytes they may hold.
package admission
