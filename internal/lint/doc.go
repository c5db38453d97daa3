// Package lint holds the rules of this repository that no general linter knows: which package may
// import which, what stays out of which package, and what files look like. The rules are its tests;
// there is nothing else in it.
package lint
