// A long run of a tiny model: its memory stays flat, its speed does not drift, and a run that is resumed many times
// ends with its bits. usage: soak [STEPS [RESUMES]], 1,000,000 steps and 20 by default.

#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "files/bytes.hpp"
#include "tinymoe/model.hpp"
#include "train/tiny.hpp"

namespace {

using namespace tinymoe_test;

/// The bytes that malloc has given out. Resident pages alone would not do for a short run: the kernel counts them to
/// some dozen pages per core, and takes them away or makes them huge when it likes.
Index allocated() {
  const auto heap = mallinfo2();
  return static_cast<Index>(heap.uordblks + heap.hblkhd);
}

/// The pages that this process has in memory.
Index resident_pages() {
  Index virtual_pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> virtual_pages >> resident;
  return resident;
}

/// This thread's time on a core, in seconds: other processes must not make a run look slow.
double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Looks at the process at the end of each part of a run.
class Samples : public Observer {
 public:
  static constexpr Index count = 20;
  explicit Samples(Index steps) : steps_(steps) { parts_.reserve(count); }
  void on_step(const StepReport& report, const ExpertLoads&) override {
    if (report.step < steps_ * (std::ssize(parts_) + 1) / count) return;
    const double now = thread_seconds();
    parts_.push_back({report.step, allocated(), resident_pages(), now - since_});
    since_ = now;
  }
  /// Throws unless memory is flat behind the first checkpoints. Where the parts are long enough to be timed, the last
  /// quarter must be about as fast as the others.
  void check() const {
    constexpr Index begin = 6;  // checkpoints are written in the parts 2, 4, 6 …
    const Part &first = parts_[begin], &last = parts_.back();
    const double early = median(begin, count - count / 4), late = median(count - count / 4, count);
    std::printf(
        "from step %td on: %td to %td bytes allocated, %td to %td pages resident; the last quarter's steps take "
        "%+.1f %% longer\n",
        first.step, first.allocated, last.allocated, first.pages, last.pages, 100 * (late / early - 1));
    constexpr Index kept_for_reuse = 4096;  // bytes: small freed pieces that a thread keeps count as given out
    constexpr Index counted_late = 256;     // pages
    if (last.allocated > first.allocated + kept_for_reuse || last.pages > first.pages + counted_late) {
      fail<TrainingError>("the memory is not flat");
    }
    if (early > 1 && late > 2 * early) fail<TrainingError>("the steps have become slower");
  }

 private:
  struct Part {
    Index step, allocated, pages;
    double seconds;
  };
  double median(Index begin, Index end) const {
    std::vector<double> values;
    for (Index i = begin; i < end; ++i) values.push_back(parts_[static_cast<std::size_t>(i)].seconds);
    std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
    return values[values.size() / 2];
  }
  Index steps_;
  std::vector<Part> parts_;
  double since_ = thread_seconds();
};

/// Trains up to step `stop` of `steps`, from where `folder` is.
void train(const std::filesystem::path& folder, Index steps, Index stop, Observer* observer = nullptr) {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5}, {setting::dropout = 0.1});
  Trainer trainer(model, AdamW{.lr = 1e-3}, WarmupCosine{.warmup = 10});
  if (std::filesystem::exists(folder)) trainer.resume(folder);
  FitOptions options{.batch = 2,
                     .time = 16,
                     .steps = steps,
                     .average = 0.9,
                     .evaluate_every = std::max<Index>(steps / 40, 1),
                     .validation = &tiny_data(),
                     .checkpoint_every = std::max<Index>(steps / 10, 1),
                     .checkpoint = folder,
                     .tokenizer = &tiny_tokenizer(),
                     .stop = [&] { return trainer.step() >= stop && stop < steps; }};
  if (observer != nullptr) options.observers = {observer};
  trainer.fit(tiny_data(), options);
}

void soak(Index steps, Index resumes) {
  const TemporaryFolder root;
  Samples samples(steps);
  train(root / "whole", steps, steps, &samples);
  samples.check();
  const RandomStream stream(Seed{17}, 0, RandomSite{3});
  std::vector<Index> stops = {steps};
  for (Index i = 0; i < resumes; ++i) {
    stops.push_back(1 + static_cast<Index>(random_below(stream, static_cast<std::uint64_t>(i),
                                                        static_cast<std::uint64_t>(steps - 1))));
  }
  std::sort(stops.begin(), stops.end());
  for (const Index stop : stops) train(root / "parts", steps, stop);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "average.safetensors"}) {
    if (read_bytes(root / "whole" / file) != read_bytes(root / "parts" / file)) {
      fail<TrainingError>(file, " has other bits than that of the run that was not resumed");
    }
  }
  std::printf("%td steps, and again resumed %td times: the same bits\n", steps, resumes);
}

}  // namespace

int main(int count, char** values) {
  Index numbers[] = {1'000'000, 20};
  for (int i = 1; i < count && i <= 2; ++i) {
    const std::string_view text = values[i];
    if (std::from_chars(text.data(), text.data() + text.size(), numbers[i - 1]).ec != std::errc() ||
        numbers[i - 1] < 1) {
      std::fprintf(stderr, "soak: expected a whole number above 0, found %s\n", values[i]);
      return 1;
    }
  }
  try {
    soak(std::max<Index>(numbers[0], 100), numbers[1]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "soak: %s\n", error.what());
    return 1;
  }
}
