"""Synthetic students: names from several parts of the world, departments of unequal sizes, plausible CGPAs."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from litestar_app.students.schemas import CGPA_MAX

BATCH = 1000
"""Students that are made at once, however many are wanted, so that the fewer are the first of the more."""


class _Names(NamedTuple):
    weight: int
    form: str
    """How the two make a name."""
    given: str
    family: str


NAMES = [
    _Names(
        30,
        "{} {}",
        "Ananya Rohan Priya Arjun Kavya Vikram Meera Aditya Sneha Farhan Lakshmi Imran Divya Karthik Nandini Harpreet",
        "Sharma Iyer Reddy Nair Banerjee Khan Patel Singh Rao Das Menon Joshi Kulkarni Fernandes Gupta Chatterjee",
    ),
    _Names(8, "{} {}", "अनन्या रोहन प्रिया अर्जुन काव्या विक्रम मीरा आदित्य", "शर्मा गुप्ता वर्मा जोशी मिश्रा यादव चौधरी सिंह"),
    _Names(4, "{} {}", "கவிதா முருகன் செல்வி அருண் மீனா கார்த்திக்", "சுந்தரம் குமார் ராஜன் வேலு நடராஜன் பாண்டியன்"),
    _Names(
        12,
        "{} {}",
        "Emma Liam Olivia Noah Siobhán Callum Chloe Ethan Grace Owen Ruth Samuel",
        "Smith Jones O'Brien Taylor McDonald Walker Hughes Campbell Bennett Fitzgerald Baker Young",
    ),
    _Names(
        8,
        "{} {}",
        "José María Lucía Mateo João Inês Thiago Beatriz Andrés Zoë Ramón Núria",
        "García Muñoz Fernández Silva Gonçalves Peña Rodríguez Araújo Ibáñez Martí Núñez Conceição",
    ),
    _Names(
        7,
        "{} {}",
        "Jürgen Zoé François Søren Małgorzata Jiří Åsa Łukasz Björn Eszter Noémie İpek",
        "Müller Lefèvre Ångström Nowak Dvořák Sørensen Weiß Kovács D'Angelo Çelik Jõgi Popović",
    ),
    _Names(
        5,
        "{} {}",
        "Анна Дмитрий Олена Сергей Мария Иван Ольга Тарас",
        "Иванова Шевченко Петренко Ким Коваль Мороз Бондарь Мельник",
    ),
    _Names(
        2, "{} {}", "Ελένη Γιώργος Μαρία Νίκος Σοφία Δημήτρης", "Παπαδάκη Ιωάννου Γεωργίου Νικολάου Αντωνίου Βασιλείου"
    ),
    _Names(6, "{} {}", "محمد فاطمة أحمد مريم يوسف ليلى علي زينب", "الحسن خليل العلي حداد منصور الشامي ناصر سعيد"),
    _Names(8, "{1}{0}", "伟 芳 秀英 敏 静 磊 洋 小明 子涵 欣怡 浩然 雨桐", "王 李 张 刘 陈 杨 黄 赵 欧阳 周 吴 徐"),
    _Names(3, "{1} {0}", "陽菜 蓮 結衣 大翔 さくら 悠真", "佐藤 鈴木 高橋 田中 渡辺 伊藤"),
    _Names(3, "{1}{0}", "서연 민준 지우 도윤 하은 시우", "김 이 박 최 정 강"),
    _Names(4, "{1} Thị {0}", "Hương Lan Mai Thảo Ngọc Ánh", "Nguyễn Trần Lê Phạm Đặng Võ"),
    _Names(
        6,
        "{} {}",
        "Chinedu Ngozi Oluwaseun Amina Kwame Thandiwe Wanjiru Abebe Fatou Tariro",
        "Okafor Adébáyọ̀ Mensah Dlamini Kamau Tesfaye Diallo Moyo Nkosi Eze",
    ),
]
DEPARTMENTS = {  # the weight, and the mean CGPA if the best is 10
    "Computer Science and Engineering": (30, 7.6),
    "Mechanical Engineering": (16, 7.1),
    "Electronics and Communication": (14, 7.3),
    "Business Administration": (10, 7.4),
    "Civil Engineering": (8, 7.0),
    "Electrical Engineering": (7, 7.2),
    "Biotechnology": (4, 7.7),
    "Economics": (4, 7.3),
    "Mathematics": (3, 7.8),
    "Physics": (2, 7.5),
    "Philosophy": (1, 7.9),
    "Linguistics": (1, 8.0),
}
SPREAD = 1.1
"""The standard deviation of a CGPA if the best is 10."""


def make_students(seed: int) -> Iterator[list[tuple[str, str, float]]]:
    """Yield batches of students without end, each a name, a department and a CGPA; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  nothing is secret
    weights = [names.weight for names in NAMES]
    pools = [(names.form.format, names.given.split(), names.family.split()) for names in NAMES]
    departments, sizes = list(DEPARTMENTS.items()), [weight for weight, _ in DEPARTMENTS.values()]
    while True:
        chosen = rng.choices(pools, weights, k=BATCH)
        yield [
            (
                form(rng.choice(given), rng.choice(family)),
                department,
                min(CGPA_MAX, max(0.3 * CGPA_MAX, round(rng.gauss(mean, SPREAD) * CGPA_MAX / 10, 2))),
            )
            for (form, given, family), (department, (_, mean)) in zip(
                chosen, rng.choices(departments, sizes, k=BATCH), strict=True
            )
        ]
