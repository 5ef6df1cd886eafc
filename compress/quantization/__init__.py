"""Static int8 quantization of an exported network, by the policy that this processor needs."""
