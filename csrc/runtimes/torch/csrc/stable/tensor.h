// Stands in for the header of torch of this name.
#pragma once

#include "runtimes/tensor.h"
