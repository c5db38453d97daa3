package tour

import "larder/store/storepb"

// Eq returns the matcher name="value".
func Eq(name, value string) *storepb.LabelMatcher {
	return &storepb.LabelMatcher{Type: storepb.LabelMatcher_EQ, Name: name, Value: value}
}

// Neq returns the matcher name!="value".
func Neq(name, value string) *storepb.LabelMatcher {
	return &storepb.LabelMatcher{Type: storepb.LabelMatcher_NEQ, Name: name, Value: value}
}

// Re returns the matcher name=~"value".
func Re(name, value string) *storepb.LabelMatcher {
	return &storepb.LabelMatcher{Type: storepb.LabelMatcher_RE, Name: name, Value: value}
}
