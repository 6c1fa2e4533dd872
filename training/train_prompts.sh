#!/bin/sh
# The whole text-to-image recipe on a GPU, about ten minutes after rendering:
#   sh train_prompts.sh DATA RUN
# DATA: folder of render-prompts.mjs. PYTHON names the interpreter (default python3), MINUTES the length of the main run,
# AE_MINUTES that of the autoencoder, DEVICE the device.
set -e
cd "$(dirname "$0")"
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
[ -f "$1/train_ids.safetensors" ] && [ -d "$2/tokenizer" ] || "$python" prompt_tokenizers.py --data "$1" --out "$2"
"$python" train_autoencoder.py --data "$1" --out "$2" --minutes "${AE_MINUTES:-2}" --channels 32 64 128 128 --batch 64 --device "$device"
"$python" encode_latents.py --data "$1" --autoencoder "$2/autoencoder.pt" --out "$2" --batch 500 --device "$device"
"$python" train_text_encoders.py --data "$1" --run "$2" --minutes 1 --batch 1024 --device "$device"
"$python" train_prompts.py --data "$1" --run "$2" --minutes "${MINUTES:-6}" --batch 512 --compile --device "$device"
"$python" export_prompts.py --run "$2"
"$python" prompts_classifier.py --data "$1" --images 400000 --minutes 1 --device "$device"
"$python" evaluate_prompts.py --data "$1" --images 2000 --batch 500 --device "$device"
