package indexheader

const childDirEnv = "LARDER_TEST_HEADER_DIR"

func buildUntilKilled(string) {}
